//! The way out to each host, and back.

use machina_core::{AdminState, Endpoint, HttpEndpoint, Instance, Sensitive, ServiceSpec, StdioEndpoint, UrlEndpoint};

use super::{SECRET, read};
use crate::formats::Difference;
use crate::formats::{Client, Export, Format, Gateway, ImportOptions, Severity, diff, export, export_gateway, import};

fn service(name: &str, endpoint: impl Into<Endpoint>) -> ServiceSpec {
    let mut spec = ServiceSpec::new(name).unwrap().instance(Instance::new(endpoint));
    spec.build_type = machina_core::BuildType::External;
    spec
}

/// Services that every host can be told of without a loss.
fn plain() -> Vec<ServiceSpec> {
    let mut remote = HttpEndpoint::new("https://mcp.example.com/mcp");
    remote.headers.insert("Authorization".to_owned(), Sensitive::secret("Bearer ${env:API_TOKEN}"));
    let program = StdioEndpoint::new("npx", ["-y", "some-package", r"C:\Users\me"]);
    vec![service("files", program.env("FILES_TOKEN", "${env:FILES_TOKEN}")), service("remote", remote)]
}

fn secret() -> Vec<ServiceSpec> {
    let mut remote = HttpEndpoint::new(format!("https://me:{SECRET}@mcp.example.com/mcp"));
    remote.headers.insert("X-Key".to_owned(), Sensitive::secret(SECRET));
    remote.headers.insert("X-Mask".to_owned(), Sensitive::secret(Sensitive::MASK));
    let args = ["--api-key=hunter2-a", "--token", "hunter2-b", "-v", "postgres://u:hunter2@h/x"];
    let program = StdioEndpoint::new("x", args).env("TOKEN", SECRET).env("DEFAULTED", "${A:-hunter2}");
    let other = StdioEndpoint::new("y", ["a"]).env("TOKEN", "hunter2-other");
    vec![service("one", program), service("two", other), service("far", Endpoint::from(remote))]
}

fn exported(services: &[ServiceSpec], client: Client) -> Export {
    let export = export(services, client).unwrap();
    assert!(!export.text.contains(SECRET), "{}", export.text);
    for note in &export.notes {
        assert!(!note.to_string().contains(SECRET), "{note}");
    }
    export
}

#[test]
fn out_and_back_changes_nothing() {
    for client in Client::ALL.iter().copied().filter(|client| *client != Client::ClaudeDesktop) {
        let export = exported(&plain(), client);
        let back = import(&export.text, &ImportOptions::default()).unwrap();
        assert_eq!(back.errors().count(), 0, "{client}: {:#?}", back.notes);
        let mut wanted = plain();
        // The references come back in the host's own form, which means the same.
        if matches!(client, Client::ClaudeCode | Client::Gemini | Client::Zed) {
            for spec in &mut wanted {
                match &mut spec.instances[0].endpoint {
                    Endpoint::Stdio(stdio) => {
                        drop(stdio.env.insert("FILES_TOKEN".into(), Sensitive::secret("${FILES_TOKEN}")))
                    }
                    Endpoint::Http(http) => {
                        drop(http.headers.insert("Authorization".into(), Sensitive::secret("Bearer ${API_TOKEN}")));
                    }
                    other => panic!("{}", other.kind()),
                }
            }
        }
        let unchanged = |change: &Difference| matches!(change, Difference::Unchanged { .. });
        let changes = diff(&wanted, &back.services);
        assert!(changes.iter().all(unchanged) && changes.len() == 2, "{client}: {changes:#?}\n{}", export.text);
    }
}

#[test]
fn claude_desktop_reaches_an_address_through_a_program() {
    let export = exported(&plain(), Client::ClaudeDesktop);
    let back = read(&export.text, Format::McpServers);
    let args = super::args(back.stdio("remote"));
    assert_eq!(args[..3], ["-y", "mcp-remote", "https://mcp.example.com/mcp"]);
    assert_eq!(args[4], "Authorization:Bearer ${API_TOKEN}");
    let said = |part: &str| export.notes.iter().any(|note| note.message.contains(part));
    assert!(said("npx mcp-remote") && said("in the place of ${API_TOKEN}"), "{:#?}", export.notes);
}

#[test]
fn no_secret_is_written_and_each_is_named() {
    for client in Client::ALL {
        let export = exported(&secret(), *client);
        for variable in
            ["TOKEN", "ONE_API_KEY", "ONE_TOKEN", "ONE_ARG_5", "DEFAULTED", "TWO_TOKEN", "FAR_X_KEY", "FAR_URL"]
        {
            let named = |note: &crate::formats::Note| note.message.contains(&format!("set {variable} to it"));
            assert!(export.notes.iter().any(named), "{client} {variable}: {:#?}", export.notes);
        }
    }
    let cursor = exported(&secret(), Client::Cursor).text;
    let code = exported(&secret(), Client::ClaudeCode).text;
    let open = exported(&secret(), Client::OpenCode).text;
    assert!(cursor.contains("\"--api-key=${env:ONE_API_KEY}\"") && cursor.contains("\"${env:ONE_TOKEN}\""), "{cursor}");
    assert!(code.contains("\"--api-key=${ONE_API_KEY}\"") && code.contains("\"TOKEN\": \"${TWO_TOKEN}\""), "{code}");
    assert!(open.contains("\"X-Key\": \"{env:FAR_X_KEY}\""), "{open}");
}

#[test]
fn vscode_asks_for_secrets_and_reads_them_back() {
    let export = exported(&secret()[..1], Client::VsCode);
    assert!(export.text.contains("\"TOKEN\": \"${input:token}\""), "{}", export.text);
    let back = read(&export.text, Format::VsCode);
    back.no_errors();
    assert_eq!(back.stdio("one").env["TOKEN"].shown(), "${env:TOKEN}");
    back.notes_at(Severity::Warning, "inputs[0]", "set the environment variable DEFAULTED");
}

#[test]
fn codex_names_variables() {
    let export = exported(&plain(), Client::Codex);
    for part in ["env_vars = [\"FILES_TOKEN\"]", "bearer_token_env_var = \"API_TOKEN\"", r"'C:\Users\me'"] {
        assert!(export.text.contains(part), "{part} in {}", export.text);
    }
    let sse = [service("s", Endpoint::Sse(HttpEndpoint::new("https://a.example/sse")))];
    let export = exported(&sse, Client::Codex);
    assert_eq!(export.notes[0].severity, Severity::Error, "{:#?}", export.notes);
}

#[test]
fn sse_keeps_its_type() {
    let sse = [service("s", Endpoint::Sse(HttpEndpoint::new("https://a.example/events")))];
    for client in [Client::ClaudeCode, Client::Cursor, Client::VsCode, Client::Windsurf] {
        let back = import(&exported(&sse, client).text, &ImportOptions::default()).unwrap();
        assert_eq!(back.sse("s").url.expose(), "https://a.example/events", "{client}");
    }
}

#[test]
fn disabled_services_have_a_switch_or_are_left_out() {
    let mut services = plain();
    services[0].admin_state = AdminState::Disabled;
    for client in Client::ALL {
        let back = import(&exported(&services, *client).text, &ImportOptions::default()).unwrap();
        let kept = back.services.iter().find(|spec| spec.name.as_str() == "files").map(|spec| spec.admin_state);
        let switch = [Client::Zed, Client::Codex, Client::Windsurf, Client::OpenCode].contains(client);
        assert_eq!(kept, switch.then_some(AdminState::Disabled), "{client}");
    }
}

#[test]
fn the_first_usable_instance_is_written_and_names_are_made_fit() {
    let mut spec =
        service("io.github.user/x.y", UrlEndpoint { url: Sensitive::plain("wss://a.example") }.into_endpoint());
    let mut off = Instance::new(HttpEndpoint::new("https://off.example"));
    off.admin_state = AdminState::Disabled;
    spec = spec.instance(off).instance(Instance::new(HttpEndpoint::new("https://on.example/mcp")));
    let twin = service("io-github-user-x-y", StdioEndpoint::new("b", ["c"]));
    let export = exported(&[spec, twin], Client::ClaudeCode);
    let back = read(&export.text, Format::McpServers);
    assert_eq!(back.http("io-github-user-x-y").url.expose(), "https://on.example/mcp");
    assert_eq!(back.stdio("io-github-user-x-y-2").command, "b");
    let socket = service("s", UrlEndpoint { url: Sensitive::plain("wss://a.example") }.into_endpoint());
    let empty = ServiceSpec::new("e").unwrap();
    let export = exported(&[socket, empty], Client::Cursor);
    let errors = export.notes.iter().filter(|note| note.severity == Severity::Error).count();
    assert_eq!(errors, 2, "{:#?}", export.notes);
}

trait IntoEndpoint {
    fn into_endpoint(self) -> Endpoint;
}

impl IntoEndpoint for UrlEndpoint {
    fn into_endpoint(self) -> Endpoint {
        Endpoint::WebSocket(self)
    }
}

#[test]
fn every_host_can_be_connected_to_machina() {
    let program = Gateway::Stdio { command: "machina".to_owned(), args: vec!["mcp".to_owned()] };
    let address = Gateway::Http { url: "http://127.0.0.1:8000/mcp".to_owned() };
    for client in Client::ALL {
        let started = import(&export_gateway(*client, &program).unwrap().text, &ImportOptions::default()).unwrap();
        assert_eq!(started.stdio("machina").command, "machina", "{client}");
        assert_eq!(super::args(started.stdio("machina")), ["mcp"], "{client}");
        let reached = import(&export_gateway(*client, &address).unwrap().text, &ImportOptions::default()).unwrap();
        if *client == Client::ClaudeDesktop {
            assert_eq!(super::args(reached.stdio("machina"))[2], "http://127.0.0.1:8000/mcp");
        } else {
            assert_eq!(reached.http("machina").url.expose(), "http://127.0.0.1:8000/mcp", "{client}");
        }
    }
    let notes = export_gateway(Client::ClaudeCode, &program).unwrap().notes;
    assert!(notes[0].message.contains("claude mcp add machina -- machina mcp"), "{notes:?}");
}

#[test]
fn a_gateway_that_cannot_be_reached_is_refused() {
    let empty = Gateway::Stdio { command: " ".to_owned(), args: Vec::new() };
    let error = export_gateway(Client::Zed, &empty).unwrap_err();
    assert_eq!(error.context().problems[0].field, "command");
    for url in ["127.0.0.1:8000", "ws://h/mcp", ""] {
        let error = export_gateway(Client::Zed, &Gateway::Http { url: url.to_owned() }).unwrap_err();
        assert_eq!(error.context().problems[0].field, "url");
    }
}

#[test]
fn hosts_are_known_by_their_words() {
    for client in Client::ALL {
        assert_eq!(client.as_str().parse::<Client>().unwrap(), *client);
        assert_eq!(serde_json::to_value(client).unwrap(), client.as_str());
    }
    let error = "emacs".parse::<Client>().unwrap_err();
    assert!(error.context().problems[0].detail.contains("claude-code"), "{error}");
}
