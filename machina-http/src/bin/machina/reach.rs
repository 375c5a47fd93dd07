//! Which Machina a command asks: one that runs, or a store that is opened for
//! as long as the command takes.

use std::sync::Arc;

use machina_core::{
    Error, ErrorKind, Machina, Page, Query, Registry, Result, Router, Sensitive, ServiceReport, ToolQuery, ToolReport,
};
use machina_http::Client;
use machina_http::assemble::{self, AssembleOptions};
use machina_mcp::client::Environment;

use crate::App;
use crate::cli::Where;
use crate::exit::Ended;
use crate::paths::{default_store, shown_store};
use crate::serve::{Answering, who_answers};
use crate::settings::Settings;
use crate::signals::Signals;

/// How many services and tools are asked for at once.
const SERVICES_PER_PAGE: u32 = 200;
const TOOLS_PER_PAGE: u32 = 1000;

/// A Machina that answers.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) router: Arc<dyn Router>,
    /// The registry itself, where it is in this process.
    pub(crate) local: Option<Machina>,
    /// Its address, where it runs elsewhere.
    pub(crate) url: Option<String>,
}

/// Whether a store that is opened has its services watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nothing is started unless the command needs it.
    No,
    /// Every service is started and watched.
    Yes,
}

/// Does `work` with the Machina that `at` names, and closes it whatever comes.
pub(crate) async fn with(
    app: &App,
    at: &Where,
    watch: Watch,
    work: impl AsyncFnOnce(&Reached) -> Result<Ended>,
) -> Result<Ended> {
    let signals = Signals::listen(&app.tasks)?;
    let reached = reach(app, at, watch).await?;
    let outcome = tokio::select! {
        outcome = work(&reached) => outcome,
        () = signals.first() => Ok(Ended::Interrupted),
    };
    if let Some(machina) = &reached.local {
        tokio::select! {
            () = machina.close() => {}
            () = signals.second() => {}
        }
    }
    outcome
}

async fn reach(app: &App, at: &Where, watch: Watch) -> Result<Reached> {
    let named = app.variables.get("MACHINA_URL").filter(|url| !url.is_empty() && app.cli.store.is_none());
    if let Some(url) = at.url.as_ref().or(named) {
        let client = Client::new(url)?;
        client.check_version().await?;
        return Ok(remote(client));
    }
    let settings = app.settings()?.settings;
    if app.cli.store.is_none() {
        let url = format!("http://{}", settings.server.listen);
        match who_answers(&url).await {
            Answering::Machina => {
                tracing::debug!(%url, "asking the server that runs here");
                return Ok(remote(Client::new(&url)?));
            }
            Answering::Other(error) => return Err(error),
            Answering::Foreign(error) => {
                let store = settings.store.url.as_deref().map(shown_store).unwrap_or_default();
                let asked = format_args!(
                    "what answers at {url} is no Machina ({}): the store {store} is asked",
                    error.message()
                );
                app.complain(asked);
            }
            Answering::Nobody => {}
        }
    }
    let hint = "if that is `machina serve`, ask it with --url http://ADDRESS:PORT";
    let machina = open(app, &settings, watch).await.map_err(|error| hinted(error, hint))?;
    Ok(Reached {
        registry: Arc::new(machina.clone()),
        router: Arc::new(machina.clone()),
        local: Some(machina),
        url: None,
    })
}

/// Opens the store that the settings name, with everything that reaches servers.
///
/// # Errors
/// Whatever the store says.
pub(crate) async fn open(app: &App, settings: &Settings, watch: Watch) -> Result<Machina> {
    let url = match &settings.store.url {
        Some(url) => url.clone(),
        None => default_store(&app.variables)?,
    };
    let mut client = settings.client();
    client.stdio.shepherd = client.stdio.shepherd.or_own(|| std::env::current_exe().ok());
    let environment = Environment::new(app.variables.clone());
    let (config, watch) = (settings.core(), watch == Watch::Yes);
    let redis = settings.store.redis.clone().map(Sensitive::secret);
    let options = AssembleOptions { config, client, environment, redis, watch };
    assemble::builder(&url, options).await?.open().await
}

/// `error` with what to do about it, if it is that another process holds the store.
pub(crate) fn hinted(error: Error, hint: &str) -> Error {
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    Error::unavailable(format!("{}; {hint}", error.message()))
}

fn remote(client: Client) -> Reached {
    Reached {
        url: Some(client.base_url().to_owned()),
        registry: Arc::new(client.clone()),
        router: Arc::new(client),
        local: None,
    }
}

impl Reached {
    /// Every service that `query` asks for.
    pub(crate) async fn services(&self, query: &Query) -> Result<Vec<ServiceReport>> {
        let mut query = Query { limit: Some(SERVICES_PER_PAGE), ..query.clone() };
        let mut services = Vec::new();
        loop {
            let Page { items, next_cursor, .. } = self.registry.find(&query).await?;
            services.extend(items);
            query.cursor = next_cursor;
            if query.cursor.is_none() {
                return Ok(services);
            }
        }
    }

    /// Every tool, or every tool of one service.
    pub(crate) async fn tools(&self, service: Option<&str>) -> Result<Vec<ToolReport>> {
        let service = service.map(str::to_owned);
        let mut query = ToolQuery { service, cursor: None, limit: Some(TOOLS_PER_PAGE) };
        let mut tools = Vec::new();
        loop {
            let Page { items, next_cursor, .. } = self.registry.tools(&query).await?;
            tools.extend(items);
            query.cursor = next_cursor;
            if query.cursor.is_none() {
                return Ok(tools);
            }
        }
    }
}
