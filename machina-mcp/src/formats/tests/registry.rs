//! server.json, bundles and Machina's own form.

use std::collections::BTreeSet;
use std::time::Duration;

use machina_core::{AdminState, BuildType, Endpoint, Sensitive};
use serde_json::json;

use super::{args, read, read_with};
use crate::formats::{Format, ImportOptions, Severity};

const SERVER: &str = include_str!("../samples/server.json");
const MANIFEST: &str = include_str!("../samples/manifest.json");

#[test]
fn server_json_first_way_is_used_and_the_others_are_kept() {
    let import = read(SERVER, Format::ServerJson);
    import.no_errors();
    let spec = import.service("io.github.Example/db-manager");
    assert_eq!(spec.title.as_deref(), Some("Database manager"));
    assert_eq!(spec.version.as_deref(), Some("3.1.0"));
    assert_eq!(spec.repository_url.as_deref(), Some("https://github.com/example/db-manager"));
    assert_eq!(spec.documentation_url.as_deref(), Some("https://db.example/docs"));
    let states: Vec<_> = spec.instances.iter().map(|i| (i.endpoint.kind(), i.admin_state)).collect();
    use AdminState::{Disabled, Enabled};
    assert_eq!(states, [("stdio", Enabled), ("stdio", Disabled), ("http", Disabled), ("sse", Disabled)]);
    import.notes_at(Severity::Warning, "packages[2]", "unpacked");
    import.notes_at(Severity::Warning, "packages[3].transport", "start it");
    import.notes_at(Severity::Info, "remotes[0]", "disabled instance");
}

#[test]
fn server_json_package_arguments_and_variables() {
    let import = read(SERVER, Format::ServerJson);
    let stdio = import.stdio("io.github.Example/db-manager");
    assert_eq!(stdio.command, "npx");
    let wanted = [
        "-y",
        "--node-options",
        "--max-old-space-size=512",
        "@example/db-manager@3.1.0",
        "serve",
        "--host",
        "localhost",
        "${env:DB_MANAGER_DATABASE_NAME}",
    ];
    assert_eq!(args(stdio), wanted);
    assert_eq!(stdio.env["DB_PASSWORD"].shown(), "${env:DB_PASSWORD}");
    assert_eq!(stdio.env["SSL_MODE"].expose(), "${env:SSL_MODE:-prefer}");
    assert!(!stdio.env.contains_key("DEBUG"));
    let variable = "set the environment variable DB_PASSWORD (Database password)";
    import.notes_at(Severity::Warning, "packages[0].environmentVariables[0]", variable);
    import.notes_at(Severity::Info, "packages[0].packageArguments[2]", "left out (Database port)");
    let spec = import.service("io.github.Example/db-manager");
    let Endpoint::Stdio(docker) = &spec.instances[1].endpoint else { panic!("is no program") };
    let image = "docker.io/example/db-manager:3.1.0";
    assert_eq!(args(docker), ["run", "-i", "--rm", "--network", "host", "-e", "DB_PASSWORD", image]);
    let Endpoint::Http(http) = &spec.instances[2].endpoint else { panic!("is no address") };
    assert_eq!(http.url.expose(), "https://${env:DB_MANAGER_TENANT}.db.example/mcp");
    assert_eq!(http.headers["Authorization"].expose(), "Bearer ${env:DB_MANAGER_TOKEN}");
    assert_eq!(http.headers["X-Region"].expose(), "eu");
}

#[test]
fn a_list_of_the_registry() {
    let import = read(include_str!("../samples/registry_list.json"), Format::ServerJson);
    assert_eq!(import.notes, []);
    assert_eq!(args(import.stdio("com.example/weather")), ["weather-mcp@0.5.0"]);
    let random = import.stdio("com.example/random");
    assert_eq!(random.command, "dnx");
    assert_eq!(args(random), ["Example.Random@0.4.0-beta", "--yes", "--", "mcp", "start"]);
}

#[test]
fn packages_are_started_by_the_launcher_of_their_registry() {
    let cases = [
        (
            r#""registryType": "npm", "identifier": "a", "runtimeArguments": [{"type": "positional", "value": "--yes"}]"#,
            "npx --yes a",
        ),
        (r#""registryType": "npm", "identifier": "a", "version": "1", "runtimeHint": "bunx""#, "bunx a@1"),
        (r#""registryType": "pypi", "identifier": "a", "version": "1", "runtimeHint": "pipx""#, "pipx run a==1"),
        (r#""registryType": "oci", "identifier": "reg:5000/a", "version": "1""#, "docker run -i --rm reg:5000/a:1"),
        (r#""registryType": "oci", "identifier": "a@sha256:0", "version": "1""#, "docker run -i --rm a@sha256:0"),
        (
            r#""registryType": "npm", "identifier": "a", "packageArguments": [{"type": "named", "name": "--flag", "value": ""}]"#,
            "npx -y a --flag",
        ),
    ];
    for (package, wanted) in cases {
        let import = read(&format!(r#"{{"name": "x/a", "packages": [{{{package}}}]}}"#), Format::ServerJson);
        import.no_errors();
        assert_eq!(import.service("x/a").instances[0].endpoint.location(), wanted);
    }
}

#[test]
fn a_server_json_that_cannot_be_used() {
    let text = r#"{"name": "a/b", "packages": [{"registryType": "cargo", "identifier": "x"}], "remotes": []}"#;
    let import = read(text, Format::ServerJson);
    import.notes_at(Severity::Warning, "packages[0]", "type of its registry");
    import.notes_at(Severity::Error, "$", "none of its packages and remotes");
    let import = read(r#"{"packages": [], "$schema": "x/server.schema.json"}"#, Format::ServerJson);
    import.notes_at(Severity::Error, "name", "io.github.user/server");
    let text = r#"{"name": "a/b", "remotes": [{"type": "carrier-pigeon", "url": "https://x"}, 7, {"type": "sse"}]}"#;
    let import = read(text, Format::ServerJson);
    import.notes_at(Severity::Error, "remotes[0].type", "streamable-http");
    import.notes_at(Severity::Error, "remotes[1]", "is a number");
    import.notes_at(Severity::Error, "remotes[2].url", "is missing");
    assert_eq!(import.services, []);
}

#[test]
fn variables_are_filled_in_once_and_within_bounds() {
    let read_url = |url: &str, variables: &str| {
        let remote = format!(r#"{{"type": "sse", "url": "{url}", "variables": {variables}}}"#);
        read(&format!(r#"{{"name": "a/b", "remotes": [{remote}]}}"#), Format::ServerJson)
    };
    let import = read_url("https://{a}/{none}/{b}{", r#"{"a": {"value": "{b}"}, "b": {"value": "x"}}"#);
    assert_eq!(import.sse("a/b").url.expose(), "https://{b}/{none}/x{");
    let long = format!(r#"{{"a": {{"value": "{}"}}}}"#, "x".repeat(1000));
    let import = read_url(&format!("https://{}", "{a}".repeat(100)), &long);
    import.notes_at(Severity::Error, "remotes[0]", "longer than 65536 bytes");
}

#[test]
fn a_bundle_whose_place_is_given() {
    let options = ImportOptions::default().variable("__dirname", "/opt/bundle");
    let import = read_with(MANIFEST, Format::Mcpb, &options);
    import.no_errors();
    let spec = import.service("local-files");
    assert_eq!(spec.title.as_deref(), Some("Local files"));
    assert_eq!(spec.owner.as_deref(), Some("Ada"));
    assert_eq!(spec.documentation_url.as_deref(), Some("https://docs.example.com/local-files"));
    assert_eq!(spec.tags.iter().map(machina_core::Tag::as_str).collect::<Vec<_>>(), ["files", "search"]);
    assert_eq!(spec.metadata["mcpb"]["license"], json!("MIT"));
    assert_eq!(spec.build_type, BuildType::External);
    let stdio = import.stdio("local-files");
    let wanted = ["/opt/bundle/server/index.js", "${HOME}/Desktop", "/srv/shared", "--limit=${env:LIMIT:-10}"];
    assert_eq!(args(stdio), wanted);
    assert_eq!(stdio.env["API_KEY"].shown(), "${env:API_KEY}");
    assert_eq!(stdio.env["LABEL"].expose(), "${env:LABEL:-}");
    assert_eq!(stdio.env["PLATFORM"].expose(), "this");
    import.notes_at(Severity::Warning, "user_config.api_key", "set the environment variable API_KEY (API key)");
    import.notes_at(Severity::Info, "user_config.limit", "default applies otherwise");
}

#[test]
fn a_bundle_whose_place_is_not_given() {
    let import = read(MANIFEST, Format::Mcpb);
    import.no_errors();
    import.notes_at(Severity::Warning, "server.mcp_config.args[0]", "__dirname");
    let options = ImportOptions::default().variable("user_config.directories", "/data");
    let import = read_with(MANIFEST, Format::Mcpb, &options);
    assert_eq!(args(import.stdio("local-files"))[1], "/data");
}

#[test]
fn bundles_are_started_by_their_type() {
    let options = ImportOptions::default().variable("__dirname", "/b");
    let started = [
        ("uv", "uv", vec!["run", "--directory", "/b", "src/main.py"]),
        ("node", "node", vec!["/b/src/main.py"]),
        ("python", "python3", vec!["/b/src/main.py"]),
        ("binary", "/b/src/main.py", vec![]),
    ];
    for (form, command, wanted) in started {
        let text = format!(
            r#"{{"manifest_version": "0.4", "name": "b", "server": {{"type": "{form}", "entry_point": "src/main.py"}}}}"#
        );
        let import = read_with(&text, Format::Mcpb, &options);
        import.no_errors();
        assert_eq!((import.stdio("b").command.as_str(), args(import.stdio("b"))), (command, wanted));
    }
    let relative = r#"{"manifest_version": "0.3", "name": "b", "server": {"mcp_config": {"command": "server/run"}}}"#;
    assert_eq!(read_with(relative, Format::Mcpb, &options).stdio("b").command, "/b/server/run");
}

#[test]
fn bundles_that_cannot_be_started() {
    let cases = [
        (r#"{}"#, "server.entry_point", "is missing"),
        (r#"{"type": "perl", "entry_point": "x"}"#, "server.type", "must be `node`"),
        (r#"{"mcp_config": {"args": []}}"#, "server.mcp_config.command", "is missing"),
        (r#"{"mcp_config": 7}"#, "server.mcp_config", "must be an object"),
    ];
    for (server, path, part) in cases {
        let text = format!(r#"{{"manifest_version": "0.3", "name": "b", "server": {server}}}"#);
        let import = read(&text, Format::Mcpb);
        import.notes_at(Severity::Error, path, part);
        assert_eq!(import.services, [], "{server}");
    }
    read(r#"{"dxt_version": "0.1", "server": {}}"#, Format::Mcpb).notes_at(Severity::Error, "name", "bundle");
    let text = r#"{"manifest_version": "0.3", "name": "b", "server": {"entry_point": "x", "type": "node"}, "user_config": []}"#;
    read(text, Format::Mcpb).notes_at(Severity::Error, "user_config", "must be an object");
}

#[test]
fn machina_records_in_three_forms() {
    let import = read(include_str!("../samples/machina.json"), Format::Machina);
    let time = import.service("time");
    assert_eq!(time.build_type, BuildType::Fastmcp);
    assert_eq!(time.health_policy.interval, Some(Duration::from_secs(30)));
    assert_eq!(time.instances.len(), 2);
    let env = time.instances[0].clone();
    let Endpoint::Stdio(stdio) = env.endpoint else { panic!("is no program") };
    assert_eq!(stdio.env["TZ"], Sensitive::secret("${env:TZ}"));
    let errors: BTreeSet<_> = import.errors().map(|note| note.path.as_str()).collect();
    assert!(errors.iter().any(|path| path.starts_with("services[1]")), "{errors:?}");
    assert!(errors.iter().any(|path| path.starts_with("services[2]")), "{errors:?}");
    assert_eq!(import.services.len(), 1);

    let bare = read(r#"{"name": "a", "instances": [{"http": {"url": "https://a.example"}}]}"#, Format::Machina);
    assert_eq!(bare.http("a").url.expose(), "https://a.example");
    let array = read(r#"[{"name": "a"}, {"name": "a"}, 7]"#, Format::Machina);
    array.notes_at(Severity::Error, "[1]", "already that of [0]");
    array.notes_at(Severity::Error, "[2]", "must be a service record");
    let toml = read("[[services]]\nname = \"t\"\ninstances = [{ stdio = { command = \"uvx\" } }]\n", Format::Machina);
    assert_eq!(toml.stdio("t").command, "uvx");
}
