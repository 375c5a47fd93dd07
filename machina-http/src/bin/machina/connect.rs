//! How hosts are configured, for the API's `…/connect`: the formats of
//! `machina-mcp` in the words of `machina-http`.

use machina_core::{HttpEndpoint, Instance, Result, ServiceSpec};
use machina_http::{ConnectAnswer, ConnectRequest, Snippet};
use machina_mcp::formats::{self, Client};
use serde_json::Value;

pub(crate) fn answer(request: &ConnectRequest) -> Result<ConnectAnswer> {
    let client: Client = request.client.parse()?;
    let endpoint = HttpEndpoint::new(&request.url);
    let machina = ServiceSpec::new(&request.name)?.instance(Instance::new(endpoint));
    let command = (client == Client::ClaudeCode)
        .then(|| format!("claude mcp add --transport http {} {}", request.name, request.url));
    let direct = request.direct.as_ref().map(|spec| snippet(client, spec)).transpose()?;
    Ok(ConnectAnswer { command, snippet: snippet(client, &machina)?, direct })
}

fn snippet(client: Client, spec: &ServiceSpec) -> Result<Snippet> {
    let export = formats::export(std::slice::from_ref(spec), client)?;
    let config = serde_json::from_str(&export.text).unwrap_or(Value::String(export.text));
    let notes = export.notes.iter().map(ToString::to_string).collect();
    Ok(Snippet { file: file(client).to_owned(), config, notes })
}

/// The file of a host that the snippet belongs into.
const fn file(client: Client) -> &'static str {
    match client {
        Client::ClaudeCode => ".mcp.json",
        Client::ClaudeDesktop => "claude_desktop_config.json",
        Client::Cursor => ".cursor/mcp.json",
        Client::VsCode => ".vscode/mcp.json",
        Client::Zed => "settings.json",
        Client::Codex => ".codex/config.toml",
        Client::Gemini => ".gemini/settings.json",
        Client::Windsurf => "mcp_config.json",
        Client::OpenCode => "opencode.json",
        _ => "the configuration of the host",
    }
}

#[cfg(test)]
mod tests {
    use machina_core::ErrorKind;

    use super::*;

    fn request(client: &str) -> ConnectRequest {
        let direct =
            ServiceSpec::new("docs").unwrap().instance(Instance::new(HttpEndpoint::new("https://d.example/mcp")));
        let (name, url) = ("machina-reading".to_owned(), "http://127.0.0.1:8000/mcp/reading".to_owned());
        ConnectRequest { client: client.to_owned(), name, url, direct: Some(direct) }
    }

    #[test]
    fn every_host_is_told_where_and_what() {
        for client in Client::ALL {
            let answer = answer(&request(client.as_str())).unwrap();
            let (own, direct) = (answer.snippet.config.to_string(), answer.direct.unwrap().config.to_string());
            assert!(own.contains("127.0.0.1:8000/mcp/reading") && own.contains("machina-reading"), "{client}: {own}");
            assert!(direct.contains("https://d.example/mcp"), "{client}: {direct}");
            assert_ne!(file(*client), "the configuration of the host", "{client}");
        }
        let command = answer(&request("claude-code")).unwrap().command;
        let expected = "claude mcp add --transport http machina-reading http://127.0.0.1:8000/mcp/reading";
        assert_eq!(command.as_deref(), Some(expected));
        assert_eq!(answer(&request("zed")).unwrap().command, None);
    }

    #[test]
    fn an_unknown_host_is_named_with_those_that_are_known() {
        let error = answer(&request("notepad")).unwrap_err();
        assert_eq!((error.kind(), error.context().problems[0].field.as_str()), (ErrorKind::Invalid, "client"));
        assert!(error.message().contains("claude-code"), "{error}");
    }
}
