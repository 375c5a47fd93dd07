//! `serve` and `mcp`: opens the store, declares what the configuration and its
//! imports declare, and serves until asked to end.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use machina_core::{Error, ErrorKind, Machina, Principal, Result, Role, ServiceSpec};
use machina_http::{Client, Extensions, router_with};
use machina_mcp::formats::Severity;
use machina_mcp::registry::registry_api;
use machina_mcp::server::{StreamableHttp, serve_stdio, streamable_http};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::cli;
use crate::connect;
use crate::declare;
use crate::exit::Ended;
use crate::paths::shown_store;
use crate::reach::{Watch, hinted, open};
use crate::settings::{Flags, Settings};
use crate::settle;
use crate::signals::Signals;

/// How long a server on this machine may take to say that it is Machina.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What answers at an address of this machine.
#[derive(Debug)]
pub(crate) enum Answering {
    /// A Machina that this one understands.
    Machina,
    /// A Machina of another version, as the error says.
    Other(Error),
    /// A server, but no Machina; why it is thought so.
    Foreign(Error),
    /// Nothing.
    Nobody,
}

/// Asks who answers at `url`.
pub(crate) async fn who_answers(url: &str) -> Answering {
    let Ok(client) = Client::new(url) else { return Answering::Nobody };
    let silent = |_| Err(Error::timeout(format!("it did not answer within {ANSWER_WITHIN:?}")));
    match tokio::time::timeout(ANSWER_WITHIN, client.check_version()).await.unwrap_or_else(silent) {
        Ok(()) => Answering::Machina,
        Err(error) if error.kind() == ErrorKind::Unsupported => Answering::Other(error),
        Err(error) if error.kind() == ErrorKind::Unreachable => Answering::Nobody,
        Err(error) => Answering::Foreign(error),
    }
}

/// Serves over HTTP.
pub(crate) async fn http(app: &App, args: &cli::Serve) -> Result<Ended> {
    let flags =
        Flags { listen: args.listen.as_deref(), import: &args.import, builtin: &args.builtin, ..Flags::default() };
    let (settings, declared) = prepared(app, flags)?;
    let signals = Signals::listen(&app.tasks)?;
    let listener = bind(settings.server.listen).await?;
    let hint = "if that is another `machina serve`, it serves already; or name another store with --store";
    let machina = open(app, &settings, Watch::Yes).await.map_err(|error| hinted(error, hint))?;
    let stop = CancellationToken::new();
    let work = async {
        announce(app, &listener, &settings)?;
        let mut serving = Box::pin(over_http(listener, &machina, &settings, stop.clone()));
        let coming_up = async {
            declare_all(app, &machina, declared, &settings).await?;
            settle::show(app, &machina).await;
            std::future::pending::<Result<()>>().await
        };
        tokio::select! {
            served = &mut serving => return served,
            failed = coming_up => return failed,
            () = signals.first() => {}
        }
        say_stopping(app);
        stop.cancel();
        serving.await
    };
    Box::pin(to_the_end(&signals, &machina, work)).await
}

/// Serves a host on stdin and stdout, and over HTTP if that is wanted.
pub(crate) async fn stdio(app: &App, args: &cli::Mcp) -> Result<Ended> {
    let cli::Mcp { listen, mode, import, builtin } = args;
    let flags = Flags { listen: listen.as_deref(), mode: mode.as_deref(), import, builtin, ..Flags::default() };
    let (settings, declared) = prepared(app, flags)?;
    let signals = Signals::listen(&app.tasks)?;
    let listener = match args.listen {
        Some(_) => Some(bind(settings.server.listen).await?),
        None => None,
    };
    if let Some(listener) = &listener {
        app.screen.line(&format!("listening on http://{}", address_of(listener)?));
    }
    let machina = match open(app, &settings, Watch::Yes).await {
        Ok(machina) => machina,
        Err(error) => return Err(hinted(error, &instead(&settings).await)),
    };
    let stop = CancellationToken::new();
    let work = async {
        let mut serving = pin!(async {
            match listener {
                Some(listener) => Box::pin(over_http(listener, &machina, &settings, stop.clone())).await,
                // Nothing to serve, and so nothing to wait for.
                None => {
                    stop.cancelled().await;
                    Ok(())
                }
            }
        });
        let host = machina.scoped(Principal::new("stdio", Role::Developer).remote());
        let talk = async {
            declare_all(app, &machina, declared, &settings).await?;
            Box::pin(serve_stdio(host, settings.mcp.exposure())).await
        };
        tokio::select! {
            served = &mut serving => return served,
            talked = talk => talked?,
            () = signals.first() => {}
        }
        stop.cancel();
        serving.await
    };
    Box::pin(to_the_end(&signals, &machina, work)).await
}

/// What a host does instead of starting a second Machina on one store.
async fn instead(settings: &Settings) -> String {
    let url = format!("http://{}", settings.server.listen);
    let server = if matches!(who_answers(&url).await, Answering::Machina) { &*url } else { "http://ADDRESS:PORT" };
    format!(
        "if that is `machina serve`, have the host use it: claude mcp add --transport http machina {server}/mcp; or \
         give this one a store of its own with --store"
    )
}

/// Does `work` and closes the registry, whatever comes; a second signal cuts both short.
async fn to_the_end(signals: &Signals, machina: &Machina, work: impl Future<Output = Result<()>>) -> Result<Ended> {
    let orderly = async {
        let outcome = work.await;
        machina.close().await;
        outcome.map(|()| Ended::Well)
    };
    tokio::select! {
        outcome = orderly => outcome,
        () = signals.second() => Ok(Ended::Interrupted),
    }
}

/// Reads the configuration and every file that it imports, before anything is
/// opened or started.
fn prepared(app: &App, flags: Flags<'_>) -> Result<(Settings, Vec<ServiceSpec>)> {
    let settings = app.settings_with(flags)?.settings;
    let files = declare::read(app, &settings.import)?;
    declare::remarks(app, &files, Severity::Warning);
    let mut specs = declare::services(app, files);
    specs.retain(|spec| !settings.services.iter().any(|own| own.name == spec.name));
    specs.extend(settings.services.iter().cloned());
    Ok((settings, specs))
}

async fn declare_all(app: &App, machina: &Machina, specs: Vec<ServiceSpec>, settings: &Settings) -> Result<()> {
    let declared = declare::declare(machina, specs).await?;
    for (name, error) in declared.refused {
        app.complain(format_args!("`{name}` was not taken: {}", error.message()));
    }
    for builtin in &settings.builtin {
        if let Err(error) = builtin.serve(machina).await {
            app.complain(format_args!("`{builtin}` was not taken: {}", error.message()));
        }
    }
    for group in &settings.groups {
        if let Err(error) = machina.system().put_group(group.clone(), None, false).await {
            app.complain(format_args!("the group `{}` was not taken: {}", group.name, error.message()));
        }
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let error = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let there = match who_answers(&format!("http://{address}")).await {
        Answering::Machina | Answering::Other(_) => "a Machina serves there already: use that one, or ",
        Answering::Foreign(_) | Answering::Nobody => "",
    };
    let hint = format!("{there}choose another with --listen, or 127.0.0.1:0 for any that is free");
    Err(Error::unavailable(format!("cannot listen on {address}: {error}; {hint}")).caused_by(error))
}

/// How long calls over WebSockets may take after the server was told to stop: as
/// long as other requests.
const MCP_DRAIN: Duration = Duration::from_secs(25);

/// How long what the drain has left of MCP may take to end.
const MCP_PATIENCE: Duration = Duration::from_secs(1);

/// Serves REST and MCP on `listener` until `stop`, and then until what runs is answered.
async fn over_http(
    listener: TcpListener,
    machina: &Machina,
    settings: &Settings,
    stop: CancellationToken,
) -> Result<()> {
    let hosts = machina.clone();
    let admit = move |_: &http::request::Parts| Ok(hosts.scoped(Principal::new("mcp", Role::Developer).remote()));
    let mcp = streamable_http(admit, settings.mcp_server());
    let config = &settings.server.http;
    // The MCP endpoints and the registry decide themselves which pages may use them.
    let public = mounted(&mcp).merge(registry(machina, settings));
    let extensions = Extensions::new().public(public).connect(connect::answer);
    let router = router_with(machina.clone(), config, extensions);
    let mut serving = pin!(machina_http::serve(listener, router, config, stop.clone().cancelled_owned()));
    let mut draining = pin!(async {
        stop.cancelled().await;
        mcp.drain(MCP_DRAIN).await;
    });
    let served = tokio::select! {
        served = &mut serving => {
            if stop.is_cancelled() {
                draining.await;
            }
            served
        }
        () = &mut draining => serving.await,
    };
    mcp.close(MCP_PATIENCE).await;
    served
}

/// The MCP endpoint and those of the groups, each over Streamable HTTP and WebSockets.
fn mounted(mcp: &StreamableHttp) -> axum::Router {
    let groups = mcp.of_groups();
    axum::Router::new()
        .route_service("/mcp", mcp.clone())
        .route_service("/mcp/ws", mcp.web_socket())
        .route_service("/mcp/{group}/ws", groups.web_socket())
        .route_service("/mcp/{group}", groups)
}

/// The services as the official registry would list them.
fn registry(machina: &Machina, settings: &Settings) -> axum::Router {
    let readers = machina.clone();
    let admit = move |_: &http::request::Parts| Ok(readers.scoped(Principal::new("registry", Role::Viewer).remote()));
    let api = registry_api(admit, settings.registry.clone());
    axum::Router::new().route_service("/v0.1/{*path}", api.clone()).route_service("/v0/{*path}", api)
}

fn announce(app: &App, listener: &TcpListener, settings: &Settings) -> Result<()> {
    let url = format!("http://{}", address_of(listener)?);
    let store = settings.store.url.as_deref().map(shown_store).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    if app.output.is_json() {
        app.output.json_line(&json!({
            "event": "listening", "version": version, "url": url, "mcp": format!("{url}/mcp"), "store": store,
        }));
        return Ok(());
    }
    app.output.line(format!("machina {version} listening on {url}"));
    app.output.line(format!("  REST   {url}/api/v1"));
    app.output.line(format!("  MCP    {url}/mcp"));
    app.output.line(format!("  host   claude mcp add --transport http machina {url}/mcp"));
    app.output.line(format!("  store  {store}\n"));
    Ok(())
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Error::internal("the socket has no address").caused_by(error))
}

fn say_stopping(app: &App) {
    if app.output.is_json() {
        app.output.json_line(&json!({"event": "stopping"}));
    } else {
        app.output.line("\nstopping: running calls are answered first; once more ends it at once");
    }
}
