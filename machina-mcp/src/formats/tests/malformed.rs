//! Texts that cannot be read, and entries that cannot: each with its place.

use super::{SECRET, read, read_one};
use crate::formats::{Format, ImportOptions, Severity, detect, import};

#[test]
fn a_malformed_text_is_an_error_with_line_and_column() {
    let cases = [
        ("{\n  \"mcpServers\": {\n    \"a\": {\"command\": \"hunter2\" \"args\": []}\n  }\n}", "line 3, column"),
        ("{\"mcpServers\": {", "line 1, column"),
        ("{\n\"a\": \"C:\\Users\"}", "line 2, column"),
        ("{\"a\": 'x'}", "line 1, column"),
        ("\"mcpServers\": {}", "one object in braces"),
        ("[mcp_servers.a]\ncommand = \"hunter2\nargs = []", "line 2, column"),
        ("[mcp_servers.a]\ncommand = \"a\"\ncommand = \"b\"", "line 3, column"),
        ("mcpServers:\n  a:\n    command: hunter2", "is not TOML: line 1, column"),
        ("", "is empty"),
        ("  // nothing\n", "is empty"),
        ("{}", "holds nothing"),
        ("7 = true", "in no known format: its keys are `7`"),
        ("{\"command\": \"x\"}", "a server without a name"),
        ("{\"frobnicate\": 1}", "`frobnicate`"),
    ];
    for (text, part) in cases {
        let error = detect(text).unwrap_err();
        assert_eq!(error.context().problems[0].field, "text", "{text}");
        let shown = format!("{error:?}");
        assert!(shown.contains(part), "{text}: {shown}");
        assert!(!shown.contains(SECRET), "{shown}");
        assert!(import(text, &ImportOptions::default()).is_err());
    }
}

#[test]
fn deep_and_huge_texts_are_refused() {
    let deep = format!("{{\"a\": {}", "[".repeat(10_000));
    assert!(format!("{:?}", detect(&deep).unwrap_err()).contains("depth"));
    let huge = " ".repeat(16 * 1024 * 1024 + 1);
    assert!(format!("{:?}", detect(&huge).unwrap_err()).contains("at most"));
}

#[test]
fn a_bad_entry_names_its_place_and_hides_no_other() {
    let cases = [
        ("7", "mcpServers.x", "is a number, must be an object"),
        ("{}", "mcpServers.x", "needs `command`"),
        (r#"{"command": ["npx", "hunter2"]}"#, "mcpServers.x.command", "is an array, must be text"),
        (r#"{"command": "a", "args": "hunter2"}"#, "mcpServers.x.args", "must be an array of texts"),
        (r#"{"command": "a", "args": [["hunter2"]]}"#, "mcpServers.x.args[0]", "is an array, must be text"),
        (r#"{"command": "a", "env": ["hunter2"]}"#, "mcpServers.x.env", "is an array, must be an object"),
        (r#"{"command": "a", "env": {"A B": {"c": 1}}}"#, "mcpServers.x.env[\"A B\"]", "is an object, must be text"),
        (r#"{"command": "a", "env": {"A=B": "c"}}"#, "mcpServers.x", "not the name of an environment variable"),
        (r#"{"command": "  "}"#, "mcpServers.x", "must name a program"),
        (r#"{"command": "a", "url": "https://a.example"}"#, "mcpServers.x", "both `command` and `url`"),
        (r#"{"url": "not an address"}"#, "mcpServers.x", "absolute address"),
        (r#"{"url": "ftp://a.example"}"#, "mcpServers.x", "http or https"),
        (r#"{"url": "https://a.example", "headers": {"a b": "c"}}"#, "mcpServers.x", "not a header name"),
        (r#"{"type": "pigeon", "command": "a"}"#, "mcpServers.x.type", "must be `stdio`"),
        (r#"{"type": "stdio", "url": "https://a.example"}"#, "mcpServers.x", "needs `command`"),
        (r#"{"type": "http"}"#, "mcpServers.x", "needs `url`"),
        (r#"{"command": "a", "disabled": "yes"}"#, "mcpServers.x.disabled", "must be true or false"),
        (r#"{"command": "a", "disabled": true, "enabled": true}"#, "mcpServers.x.enabled", "contradicts"),
        (r#"{"command": "a", "timeout": -1}"#, "mcpServers.x.timeout", "a number from 0"),
    ];
    for (entry, path, part) in cases {
        let text = format!(
            "{{\"mcpServers\": {{\"first\": {{\"command\": \"a\"}}, \"x\": {entry}, \"last\": {{\"command\": \"b\"}}}}}}"
        );
        let import = read(&text, Format::McpServers);
        let names: Vec<_> = import.services.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["first", "last"], "{entry}");
        import.notes_at(Severity::Error, path, part);
    }
}

#[test]
fn everything_wrong_with_an_entry_is_said_at_once() {
    let import = read_one(r#"{"command": 1, "args": 2, "env": 3, "frobnicate": 4}"#);
    let paths: Vec<_> = import.notes.iter().map(|note| note.path.as_str()).collect();
    assert_eq!(paths, ["mcpServers.x.command", "mcpServers.x.args", "mcpServers.x.env", "mcpServers.x.frobnicate"]);
}

#[test]
fn names_are_made_valid_or_refused() {
    let text = r#"{"mcpServers": {"My  Server!": {"command": "a"}, "my-server": {"command": "b"}, "日本": {"command": "c"},
        "@scope/Server": {"command": "d"}, "io.github.User/x": {"command": "e"}, "": {"command": "f"}}}"#;
    let import = read(text, Format::McpServers);
    let names: Vec<_> = import.services.iter().map(|spec| (spec.name.as_str(), spec.title.as_deref())).collect();
    let wanted =
        [("my-server", Some("My  Server!")), ("scope/server", Some("@scope/Server")), ("io.github.User/x", None)];
    assert_eq!(names, wanted);
    import.notes_at(Severity::Error, "mcpServers.my-server", "already that of mcpServers[\"My  Server!\"]");
    import.notes_at(Severity::Error, "mcpServers[\"日本\"]", "rename it");
    import.notes_at(Severity::Error, "mcpServers[\"\"]", "rename it");
}

#[test]
fn sections_of_the_wrong_type() {
    let cases = [
        (r#"{"mcpServers": []}"#, Format::McpServers, "mcpServers"),
        (r#"{"servers": {}, "inputs": {}}"#, Format::VsCode, "inputs"),
        (r#"{"servers": {}, "inputs": [7, {}]}"#, Format::VsCode, "inputs[0]"),
        (r#"{"context_servers": 7}"#, Format::Zed, "context_servers"),
        (r#"{"context_servers": {"a": {"command": {"args": []}}}}"#, Format::Zed, "context_servers.a.command.path"),
        ("mcp_servers = 7", Format::Codex, "mcp_servers"),
        ("[mcp_servers.a]\nenabled = true", Format::Codex, "mcp_servers.a"),
        ("[mcp_servers.a]\ncommand = \"a\"\nurl = \"http://b\"", Format::Codex, "mcp_servers.a"),
        ("[mcp_servers.a]\ncommand = \"a\"\nenv_vars = [\"A B\"]", Format::Codex, "mcp_servers.a.env_vars[0]"),
        (
            "[mcp_servers.a]\nurl = \"http://b\"\nbearer_token_env_var = \"A B\"",
            Format::Codex,
            "mcp_servers.a.bearer_token_env_var",
        ),
        (
            "[mcp_servers.a]\nurl = \"http://b\"\nenv_http_headers = { X = 1 }",
            Format::Codex,
            "mcp_servers.a.env_http_headers.X",
        ),
        (r#"{"mcp": {"a": {"type": "local", "command": []}}}"#, Format::OpenCode, "mcp.a.command"),
        (r#"{"mcp": {"a": {"type": "remote"}}}"#, Format::OpenCode, "mcp.a"),
        (r#"{"mcp": {"a": {"type": "far"}}}"#, Format::OpenCode, "mcp.a.type"),
        (r#"{"mcp": {"a": {"enabled": true}}}"#, Format::OpenCode, "mcp.a"),
    ];
    for (text, format, path) in cases {
        let import = read(text, format);
        assert_eq!(import.errors().next().map(|note| note.path.as_str()), Some(path), "{text}: {:#?}", import.notes);
        assert_eq!(import.services, []);
    }
    read(r#"{"mcpServers": {}}"#, Format::McpServers).notes_at(Severity::Warning, "mcpServers", "no server");
}
