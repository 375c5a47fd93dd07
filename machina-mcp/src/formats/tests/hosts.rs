//! The files of hosts.

use std::time::Duration;

use machina_core::{AdminState, BuildType, Endpoint};
use serde_json::json;

use super::{SECRET, args, read, read_one, read_with};
use crate::formats::{Format, ImportOptions, Severity};

#[test]
fn claude_desktop() {
    let import = read(include_str!("../samples/claude_desktop.json"), Format::McpServers);
    import.no_errors();
    let files = import.stdio("filesystem");
    assert_eq!(files.command, r"C:\Program Files\nodejs\npx.cmd");
    let wanted = ["-y", "@modelcontextprotocol/server-filesystem", r"C:\Users\me\Desktop", r"\\server\share"];
    assert_eq!(args(files), wanted);
    let brave = import.service("brave-search");
    assert_eq!(brave.title.as_deref(), Some("Brave Search"));
    assert_eq!(brave.build_type, BuildType::External);
    import.notes_at(Severity::Info, "mcpServers[\"Brave Search\"]", "`brave-search`");
    assert_eq!(import.stdio("brave-search").env["BRAVE_API_KEY"].expose(), "BSA-hunter2");
    let linear = import.stdio("linear");
    assert_eq!(linear.args[4].expose(), format!("Authorization:Bearer {SECRET}"));
    assert!(linear.args[4].is_secret());
    import.notes_at(Severity::Info, "mcpServers.linear.args[4]", "AUTH_HEADER");
}

#[test]
fn claude_code() {
    let import = read(include_str!("../samples/claude_code.json"), Format::McpServers);
    import.no_errors();
    let api = import.http("api");
    assert_eq!(api.url.expose(), "${API_BASE_URL:-https://api.example.com}/mcp");
    assert_eq!(api.headers["Authorization"].expose(), "Bearer ${API_KEY}");
    assert_eq!(import.sse("events").url.expose(), "https://events.example.com/stream");
    let db = import.stdio("db");
    assert_eq!(args(db)[3], "${DB_DSN:-postgres://localhost/dev}");
    assert_eq!(db.env["CACHE_DIR"].expose(), "${CACHE_DIR:-/var/cache/db}");
    assert_eq!(import.http("notes").url.expose(), "http://127.0.0.1:9000/mcp");
    import.notes_at(Severity::Warning, "mcpServers.notes.headersHelper", "sign-in");
    import.notes_at(Severity::Warning, "projects[\"/home/me/app\"].mcpServers", "single project");
}

#[test]
fn cursor_with_and_without_the_folders_of_the_host() {
    let text = include_str!("../samples/cursor.json");
    let import = read(text, Format::McpServers);
    import.no_errors();
    let separator = std::path::MAIN_SEPARATOR;
    assert_eq!(args(import.stdio("docs"))[2], format!("${{workspaceFolder}}{separator}docs"));
    import.notes_at(Severity::Warning, "mcpServers.docs.args[2]", "workspaceFolder");
    import.notes_at(Severity::Warning, "mcpServers.docs.args[4]", "userHome");
    import.notes_at(Severity::Warning, "mcpServers.docs.envFile", "not read");
    import.notes_at(Severity::Warning, "mcpServers.remote.auth", "sign-in");
    assert_eq!(import.stdio("docs").env["TOKEN"].shown(), "${env:DOCS_TOKEN}");
    assert_eq!(import.http("remote").headers["Authorization"].expose(), "Bearer ${env:REMOTE_TOKEN}");
    assert_eq!(import.sse("old").url.expose(), "http://localhost:3000/sse");
    import.notes_at(Severity::Info, "mcpServers.old.url", "SSE");

    let options = ImportOptions::default().variable("workspaceFolder", r"D:\work").variable("userHome", "/home/me");
    let import = read_with(text, Format::McpServers, &options);
    assert_eq!(args(import.stdio("docs"))[2..], [&format!(r"D:\work{separator}docs"), "--home", "/home/me"]);
    assert!(!import.notes.iter().any(|note| note.path.starts_with("mcpServers.docs.args")), "{:#?}", import.notes);
}

#[test]
fn gemini_cli_reads_url_as_sse_and_fills_in_bare_names() {
    let import = read(include_str!("../samples/gemini.json"), Format::McpServers);
    import.no_errors();
    let python = import.service("python");
    assert_eq!(python.description, "Tools in Python");
    assert_eq!(python.routing_policy.timeout, Some(Duration::from_secs(15)));
    assert_eq!(python.metadata["mcpServers"], json!({"includeTools": ["safe_tool", "file_reader"], "trust": true}));
    let stdio = import.stdio("python");
    assert_eq!(args(stdio)[3], "8080");
    import.notes_at(Severity::Info, "mcpServers.python.args[3]", "read as text");
    assert_eq!(stdio.env["DATABASE_URL"].shown(), "${DB_CONNECTION_STRING}");
    assert_eq!(stdio.env["API_KEY"].shown(), "${EXTERNAL_API_KEY}");
    assert_eq!(stdio.cwd.as_deref().unwrap().to_str(), Some("./mcp-servers/python"));
    assert_eq!(import.http("stream").url.expose(), "http://localhost:3000/mcp");
    assert_eq!(import.sse("events").url.expose(), "http://localhost:8080/events");
    import.notes_at(Severity::Warning, "mcp", "unknown key");
}

#[test]
fn windsurf() {
    let import = read(include_str!("../samples/windsurf.json"), Format::McpServers);
    import.no_errors();
    assert_eq!(import.http("figma").headers["X-Figma-Token"].shown(), "${env:FIGMA_TOKEN}");
    assert_eq!(import.service("figma").metadata["mcpServers"]["disabledTools"], json!(["delete_file"]));
    assert_eq!(import.service("git").admin_state, AdminState::Disabled);
    import.notes_at(Severity::Info, "mcpServers.git.alwaysAllow", "metadata.mcpServers");
}

#[test]
fn vscode_inputs_become_variables() {
    let import = read(include_str!("../samples/vscode.json"), Format::VsCode);
    import.no_errors();
    let stdio = import.stdio("perplexity");
    assert_eq!(stdio.env["PERPLEXITY_API_KEY"].shown(), "${env:PERPLEXITY_KEY}");
    assert_eq!(args(stdio)[3], "${env:REGION:-eu}");
    import.notes_at(Severity::Warning, "inputs[0]", "set the environment variable PERPLEXITY_KEY (Perplexity API key)");
    import.notes_at(Severity::Warning, "inputs[1]", "its default applies otherwise");
    import.notes_at(Severity::Warning, "servers.perplexity.env.ROOT", "workspaceFolder");
    import.notes_at(Severity::Warning, "servers.perplexity.dev", "only the host");
    import.notes_at(Severity::Warning, "servers.typo.frobnicate", "unknown key, not imported");
    assert_eq!(import.http("github").url.expose(), "https://api.githubcopilot.example/mcp/");
    assert_eq!(import.services.len(), 3);
}

#[test]
fn vscode_settings() {
    let import = read(include_str!("../samples/vscode_settings.json"), Format::VsCode);
    import.no_errors();
    assert_eq!(args(import.stdio("time")), ["mcp-server-time"]);
    import.notes_at(Severity::Warning, "[\"editor.fontSize\"]", "unknown key");
    let undeclared = read(
        r#"{"mcp": {"servers": {"x": {"command": "a", "args": ["${input:my key}", "${config:a.b}"]}}, "new": 1}}"#,
        Format::VsCode,
    );
    assert_eq!(args(undeclared.stdio("x")), ["${env:MY_KEY}", "${config:a.b}"]);
    undeclared.notes_at(Severity::Warning, "mcp.servers.x.args[0]", "MY_KEY");
    undeclared.notes_at(Severity::Warning, "mcp.servers.x.args[1]", "its host only");
    undeclared.notes_at(Severity::Warning, "mcp.new", "unknown key");
}

#[test]
fn zed_in_both_forms() {
    let import = read(include_str!("../samples/zed.json"), Format::Zed);
    assert_eq!(import.service("flat").admin_state, AdminState::Disabled);
    assert_eq!(args(import.stdio("flat")), ["server.js"]);
    assert_eq!(import.stdio("older").command, "/usr/bin/python3");
    assert_eq!(import.stdio("older").env["KEY"].expose(), SECRET);
    assert_eq!(import.http("remote").headers["Authorization"].expose(), "Bearer hunter2");
    import.notes_at(Severity::Warning, "context_servers.older.settings", "extension");
    import.notes_at(Severity::Error, "context_servers.postgres-context-server", "an extension of Zed");
    import.notes_at(Severity::Info, "$", "6 other settings");
    assert_eq!(import.services.len(), 3);
}

#[test]
fn codex() {
    let import = read(include_str!("../samples/codex.toml"), Format::Codex);
    import.no_errors();
    let spec = import.service("context7");
    assert!(spec.required);
    assert_eq!(spec.routing_policy.timeout, Some(Duration::from_secs(45)));
    assert_eq!(spec.health_policy.startup_grace, Some(Duration::from_millis(20_500)));
    assert_eq!(spec.metadata["codex"], json!({"enabled_tools": ["resolve", "docs"]}));
    let stdio = import.stdio("context7");
    assert_eq!(stdio.cwd.as_deref().unwrap().to_str(), Some(r"C:\Users\me"));
    assert_eq!(stdio.env["CONTEXT7_KEY"].shown(), "${env:CONTEXT7_KEY}");
    assert_eq!(stdio.env["OTHER"].shown(), "${env:OTHER}");
    assert_eq!(stdio.env["MY_ENV_VAR"].expose(), SECRET);
    let figma = import.http("figma");
    assert_eq!(import.service("figma").admin_state, AdminState::Disabled);
    assert_eq!(figma.headers["Authorization"].expose(), "Bearer ${env:FIGMA_OAUTH_TOKEN}");
    assert_eq!(figma.headers["X-Key"].shown(), "${env:FIGMA_KEY}");
    assert_eq!(figma.headers["X-Figma-Region"].expose(), "us-east-1");
    import.notes_at(Severity::Warning, "model", "unknown key");
}

#[test]
fn opencode_in_both_versions() {
    let import = read(include_str!("../samples/opencode.json"), Format::OpenCode);
    import.no_errors();
    let everything = import.service("everything");
    assert_eq!(everything.admin_state, AdminState::Disabled);
    assert_eq!(everything.metadata["opencode"], json!({"timeout": 5000}));
    let stdio = import.stdio("everything");
    assert_eq!(stdio.command, "npx");
    assert_eq!(args(stdio), ["-y", "@modelcontextprotocol/server-everything"]);
    assert_eq!(stdio.env["TOKEN"].shown(), "${env:EVERYTHING_TOKEN}");
    let jira = import.http("jira");
    assert_eq!(jira.headers["Authorization"].expose(), "Bearer ${env:JIRA_TOKEN}");
    assert_eq!(jira.headers["X-File"].expose(), "{file:~/.secret}");
    import.notes_at(Severity::Warning, "mcp.jira.headers.X-File", "{env:NAME}");
    import.notes_at(Severity::Warning, "mcp.jira.oauth", "sign-in");

    let import = read(include_str!("../samples/opencode_2.json"), Format::OpenCode);
    import.no_errors();
    assert_eq!(import.service("time").admin_state, AdminState::Disabled);
    assert_eq!(import.stdio("time").cwd.as_deref().unwrap().to_str(), Some("."));
}

#[test]
fn addresses_are_told_apart() {
    let kinds = [
        (r#"{"url": "https://a.example/mcp"}"#, "http"),
        (r#"{"url": "https://a.example/v1/sse/?x=1"}"#, "sse"),
        (r#"{"url": "https://a.example/sse", "type": "http"}"#, "http"),
        (r#"{"url": "wss://a.example/mcp"}"#, "websocket"),
        (r#"{"serverUrl": "https://a.example/mcp", "transport": "streamable_http"}"#, "http"),
        (r#"{"command": "a", "type": "local"}"#, "stdio"),
        (r#"{"httpUrl": "https://a.example/mcp", "url": "https://a.example/sse"}"#, "http"),
    ];
    for (entry, kind) in kinds {
        let import = read_one(entry);
        import.no_errors();
        assert_eq!(import.service("x").instances[0].endpoint.kind(), kind, "{entry}");
    }
    let container = read_one(r#"{"command": "C:\\docker.exe", "args": ["run", "-i", "img"]}"#);
    assert_eq!(container.service("x").build_type, BuildType::Docker);
    let Endpoint::Stdio(_) = &container.service("x").instances[0].endpoint else { panic!("is no program") };
}

#[test]
fn what_is_doubtful_is_said() {
    let cases = [
        (r#"{"command": "npx -y some-package"}"#, "mcpServers.x.command", "no shell"),
        (r#"{"command": "a", "env": {"T": "$TOKEN"}}"#, "mcpServers.x.env.T", "plain text"),
        (r#"{"command": "a", "env": {"T": null}}"#, "mcpServers.x.env.T", "not set"),
        (r#"{"command": "a", "args": ["${env:A B}"]}"#, "mcpServers.x.args[0]", "not the name of a variable"),
        (r#"{"command": "a", "url": "https://a.example", "type": "stdio"}"#, "mcpServers.x.url", "type is stdio"),
        (r#"{"command": "a", "url": "https://a.example", "type": "http"}"#, "mcpServers.x.command", "an address"),
        (r#"{"command": "a", "headers": {}}"#, "mcpServers.x.headers", "no headers"),
        (r#"{"url": "https://a.example", "args": []}"#, "mcpServers.x.args", "only a program"),
        (r#"{"url": "ws://a.example", "headers": {}}"#, "mcpServers.x.headers", "WebSocket"),
        (r#"{"command": "a", "timeout": 900}"#, "mcpServers.x.timeout", "0.01 s to 600 s"),
        (r#"{"command": "a", "tools": {"b": 1}}"#, "mcpServers.x.tools", "form is not known"),
        (r#"{"command": "a", "env": {"T": "********"}}"#, "mcpServers.x", "a mask"),
        (r#"{"command": "a", "command": "b"}"#, "mcpServers.x.command", "more than once"),
    ];
    for (entry, path, part) in cases {
        let import = read_one(entry);
        import.no_errors();
        assert_eq!(import.services.len(), 1, "{entry}");
        let found = import.notes.iter().find(|note| note.path == path && note.message.contains(part));
        assert_eq!(found.map(|note| note.severity), Some(Severity::Warning), "{entry}: {:#?}", import.notes);
    }
}

#[test]
fn the_servers_alone_are_enough() {
    let import = read(
        "\u{feff}/* plugin */ {\"a b\": {\"command\": \"x\"}, \"c\": {\"url\": \"http://h/mcp\"}}",
        Format::McpServers,
    );
    import.no_errors();
    assert_eq!(import.stdio("a-b").command, "x");
    assert_eq!(import.http("c").url.expose(), "http://h/mcp");
}
