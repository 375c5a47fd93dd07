//! Every service out to server.json and back: valid, without a secret, and the
//! same as before.

use machina_core::{
    AdminState, Endpoint, HttpEndpoint, Instance, OpenApiEndpoint, Sensitive, ServiceSpec, StdioEndpoint, UrlEndpoint,
};
use serde_json::{Value, json};

use super::{Import, SECRET, read};
use crate::formats::{EXTENSION, Format, PUBLISHER_PROVIDED, server_json};

const FLEET: &str = include_str!("../samples/fleet.json");

fn assert_valid(document: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../samples/server.schema.json")).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let wrong: Vec<_> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:#?} in {document:#}");
}

fn out(spec: &ServiceSpec) -> Value {
    let name =
        if spec.name.as_str().contains('/') { spec.name.to_string() } else { format!("local.machina/{}", spec.name) };
    let document = server_json(spec, &name);
    assert_valid(&document);
    let text = document.to_string();
    assert!(!text.contains(SECRET) && !text.contains("\"dummy\""), "{text}");
    for secret in spec.secrets().values().filter(|secret| !secret.contains("${") && secret.len() > 5) {
        assert!(!text.contains(secret.as_str()), "{secret} in {text}");
    }
    document
}

fn back(document: &Value) -> ServiceSpec {
    let mut import: Import = read(&document.to_string(), Format::ServerJson);
    import.no_errors();
    import.services.remove(0)
}

/// A record in clear, without ids.
fn record(spec: &ServiceSpec) -> Value {
    let mut record = spec.exposed();
    for instance in record["instances"].as_array_mut().unwrap() {
        instance.as_object_mut().unwrap().shift_remove("id");
    }
    record
}

/// Out and back, twice: the first time secrets become references, the second
/// time nothing may change.
#[track_caller]
fn keeps(spec: &ServiceSpec) -> ServiceSpec {
    let once = back(&out(spec));
    let twice = back(&out(&once));
    assert_eq!(record(&once), record(&twice));
    if spec.secrets().is_empty() {
        assert_eq!(record(spec), record(&once));
    }
    once
}

fn extension(document: &Value) -> Vec<&str> {
    let extension = document["_meta"][PUBLISHER_PROVIDED][EXTENSION].as_object();
    extension.map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default()
}

fn full() -> ServiceSpec {
    let record = json!({
        "name": "shop", "title": "T".repeat(150), "description": "d".repeat(5000), "version": "1.x",
        "build_type": "fastmcp", "origin": "official", "required": true, "build_priority": "HIGH",
        "admin_state": "maintenance", "tags": ["a", "b"], "category": "c", "capabilities": ["x"],
        "environment": "production", "tenant": "acme", "access_level": "opal", "owner": "o",
        "repository_url": "https://git.example/shop", "documentation_url": "https://docs.example/shop",
        "health_policy": {"interval": "7s"}, "routing_policy": {"balancer": "round_robin", "timeout": "3s"},
        "config": {"z": 1, "a": [null, {"k": "v"}]}, "labels": {"l": "1"}, "metadata": {"m": {"n": true}},
        "instances": [
            {"http": {"url": "https://a.example/mcp"}, "weight": 5, "region": "eu", "zone": "1", "labels": {"x": "y"}},
            {"http": {"url": "https://b.example/mcp"}, "admin_state": "disabled"},
            {"sse": {"url": "https://c.example/sse"}},
            {"stdio": {"command": "npx", "args": ["-y", "shop@1.2.3", "serve"], "cwd": "/srv"}},
        ],
    });
    ServiceSpec::from_value(record).unwrap()
}

#[test]
fn every_field_of_a_record_comes_back() {
    let document = out(&full());
    assert_eq!(document["description"].as_str().unwrap().chars().count(), 100);
    assert_eq!(document["version"], "0.0.0");
    assert_eq!(document["remotes"].as_array().unwrap().len(), 2, "what is disabled is offered to nobody");
    assert_eq!(document["packages"][0]["identifier"], "shop");
    keeps(&full());
}

#[test]
fn what_the_format_can_say_needs_no_extension() {
    let mut spec = ServiceSpec::new("io.example/plain").unwrap();
    spec.build_type = machina_core::BuildType::External;
    spec.description = "Plain".to_owned();
    spec.version = Some("1.0.0".to_owned());
    spec.repository_url = Some("https://github.com/example/plain".to_owned());
    let program = StdioEndpoint::new("npx", ["-y", "plain@1.0.0", "run", "--x"]).env("TOKEN", SECRET);
    spec.instances.push(Instance::new(program));
    let document = out(&spec);
    assert_eq!(extension(&document), [""; 0]);
    assert_eq!(document["repository"]["source"], "github");
    let asked = json!([{"name": "TOKEN", "isRequired": true, "isSecret": true}]);
    assert_eq!(document["packages"][0]["environmentVariables"], asked);
    let Endpoint::Stdio(stdio) = &keeps(&spec).instances[0].endpoint else { panic!("is no program") };
    assert_eq!(stdio.env["TOKEN"].shown(), "${env:TOKEN}");

    let mut remote = HttpEndpoint::new("https://a.example/mcp");
    remote.headers.insert("X-Key".to_owned(), Sensitive::secret(SECRET));
    spec.instances = vec![Instance::new(Endpoint::from(remote))];
    let document = out(&spec);
    assert_eq!(extension(&document), [""; 0], "{document}");
    assert_eq!(document["remotes"][0]["headers"][0], json!({"name": "X-Key", "isRequired": true, "isSecret": true}));
}

#[test]
fn every_kind_of_endpoint_comes_back() {
    let mut sse = HttpEndpoint::new(format!("https://me:{SECRET}@a.example/sse"));
    sse.headers.insert("Authorization".to_owned(), Sensitive::secret("Bearer ${env:API_TOKEN}"));
    let endpoints: Vec<Endpoint> = vec![
        StdioEndpoint::new("/opt/server", ["--api-key=hunter2-a", "--token", "hunter2-b", "${DIR:-/x}/{y}"]).into(),
        Endpoint::Http(HttpEndpoint::new("https://${HOST}/mcp")),
        Endpoint::Sse(sse),
        Endpoint::WebSocket(UrlEndpoint { url: Sensitive::plain("wss://a.example/ws") }),
        Endpoint::OpenApi(OpenApiEndpoint {
            document: "https://a.example/openapi.json".to_owned(),
            base_url: "https://a.example".to_owned(),
        }),
        Endpoint::InProcess,
    ];
    for endpoint in endpoints {
        let kind = endpoint.kind();
        let spec = ServiceSpec::new("x").unwrap().instance(Instance::new(endpoint));
        assert_eq!(keeps(&spec).instances[0].endpoint.kind(), kind);
    }
    assert_eq!(keeps(&ServiceSpec::new("empty").unwrap()).instances.len(), 0);
    let mut taken_out = full();
    taken_out.instances.iter_mut().for_each(|instance| instance.admin_state = AdminState::Quarantined);
    let document = out(&taken_out);
    assert!(document.get("packages").is_none() && document.get("remotes").is_none());
    keeps(&taken_out);
}

#[test]
fn two_secrets_of_one_name_stay_two() {
    let with = |key: &str| {
        let mut http = HttpEndpoint::new(format!("https://{key}.example/mcp"));
        http.headers.insert("X-Key".to_owned(), Sensitive::secret(format!("{SECRET}-{key}")));
        Instance::new(Endpoint::from(http))
    };
    let spec = ServiceSpec::new("two").unwrap().instance(with("a")).instance(with("b"));
    let read = keeps(&spec);
    let keys: Vec<_> = read.instances.iter().map(|instance| format!("{:?}", instance.endpoint)).collect();
    assert!(keys[0].contains("${env:TWO_X_KEY}") && !keys[1].contains("${env:TWO_X_KEY}"), "{keys:?}");
}

#[test]
fn commands_become_the_packages_that_they_start() {
    let cases: [(&str, &[&str], Value); 9] = [
        ("npx", &["-y", "@a/b@1.0.0", "x"], json!(["npm", "@a/b", "1.0.0"])),
        ("npx", &["b@latest"], json!(["npm", "b", null])),
        ("bunx", &["b"], json!(["npm", "b", null])),
        ("uvx", &["b@1"], json!(["pypi", "b", "1"])),
        ("uvx", &["--with", "c<2", "--from", "b==1", "b"], json!(["pypi", "b", "1"])),
        ("pipx", &["run", "b==1"], json!(["pypi", "b", "1"])),
        ("dnx", &["B@1.0.0", "--yes", "--", "go"], json!(["nuget", "B", "1.0.0"])),
        ("docker", &["run", "-i", "--rm", "-e", "K", "-v", "/a:/b", "r/i:1", "go"], json!(["oci", "r/i:1", null])),
        ("C:\\bin\\npx", &["-y", "b@^1"], json!(["npm", "b", null])),
    ];
    for (command, args, wanted) in cases {
        let spec = ServiceSpec::new("x").unwrap().instance(Instance::new(StdioEndpoint::new(command, args.to_vec())));
        let package = out(&spec)["packages"][0].clone();
        let found = json!([package["registryType"], package["identifier"], package["version"]]);
        assert_eq!(found, wanted, "{command} {args:?}");
        keeps(&spec);
    }
    let none: [(&str, &[&str]); 9] = [
        ("python3", &["server.py"]),
        ("npx", &[]),
        ("npx", &["-y"]),
        ("npx", &["-p", "a", "b"]),
        ("npx", &["-y", "${PACKAGE}"]),
        ("uvx", &["--from", "a==1", "b"]),
        ("uvx", &["--from", "git+https://a.example/b", "b"]),
        ("docker", &["compose", "up"]),
        ("dnx", &["b", "go"]),
    ];
    for (command, args) in none {
        let spec = ServiceSpec::new("x").unwrap().instance(Instance::new(StdioEndpoint::new(command, args.to_vec())));
        assert!(out(&spec).get("packages").is_none(), "{command} {args:?}");
        keeps(&spec);
    }
}

#[test]
fn the_fleet_goes_out_and_comes_back() {
    let import = read(FLEET, Format::McpServers);
    assert_eq!(import.services.len(), 46);
    let packaged = import.services.iter().filter(|spec| out(spec).get("packages").is_some()).count();
    assert_eq!(packaged, 45, "all but the one whose program has another name than its package");
    import.services.iter().for_each(|spec| drop(keeps(spec)));
}

#[test]
fn an_extension_that_is_no_record_is_passed_over() {
    for extension in [json!(7), json!({"weight": 1}), json!({"instances": [{}]}), json!({"name": "A B"})] {
        let document = json!({
            "name": "a/b", "description": "d", "version": "1", "remotes": [{"type": "sse", "url": "https://x.example/"}],
            "_meta": {PUBLISHER_PROVIDED: {EXTENSION: extension, "other": 1}, "else": 2},
        });
        let import = read(&document.to_string(), Format::ServerJson);
        let path = format!("_meta[\"{PUBLISHER_PROVIDED}\"][\"{EXTENSION}\"]");
        import.notes_at(crate::formats::Severity::Warning, &path, "not imported");
        assert_eq!(import.sse("a/b").url.expose(), "https://x.example/");
    }
}
