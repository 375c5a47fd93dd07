//! Who may import whom (see `docs/architecture.md`).

use serde_json::{Value, json};

use super::{Source, assert_clean, output_of, sources};

/// Everything the core may depend on: no I/O, no SDK.
const CORE_MAY_USE: [&str; 24] = [
    "arc-swap",
    "async-trait",
    "base64",
    "csv",
    "foldhash",
    "futures-util",
    "imbl",
    "jiff",
    "jsonschema",
    "serde",
    "serde_json",
    "serde_json_canonicalizer",
    "serde_path_to_error",
    "sha2",
    "smallvec",
    "smol_str",
    "thiserror",
    "tokio",
    "tokio-util",
    "tracing",
    "unicode-security",
    "url",
    "utoipa",
    "uuid",
];

/// The parts of tokio that do no I/O.
const CORE_MAY_USE_OF_TOKIO: [&str; 4] = ["sync", "time", "rt", "macros"];

/// The crates that depend on the core, and on nothing else of Machina.
const ADAPTERS: [&str; 3] = ["machina-store", "machina-mcp", "machina-http"];

/// The features under which `machina-http` may assemble the others: for the
/// binary, and for programs that embed the whole.
const ASSEMBLY: (&str, [&str; 2]) = ("machina-http", ["bin", "assemble"]);

/// The file of its library that does so.
const ASSEMBLING: &str = "machina-http/src/assemble.rs";

fn metadata() -> Value {
    let text = output_of(env!("CARGO"), &["metadata", "--format-version", "1", "--no-deps"]);
    serde_json::from_str(&text).unwrap()
}

fn package<'a>(metadata: &'a Value, name: &str) -> &'a Value {
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().find(|package| package["name"] == name).unwrap_or_else(|| panic!("there is no package {name}"))
}

/// The dependencies of a package outside of tests.
fn normal(package: &Value) -> impl Iterator<Item = &Value> {
    package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["kind"] != "dev")
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

fn wrong_in_core(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for dependency in normal(package(metadata, "machina-core")) {
        let name = dependency["name"].as_str().unwrap();
        if !CORE_MAY_USE.contains(&name) {
            problems.push(format!("machina-core depends on {name}, which is not in the list of what it may use"));
        }
        if name == "tokio" {
            let more = texts(&dependency["features"]).into_iter().filter(|f| !CORE_MAY_USE_OF_TOKIO.contains(f));
            problems.extend(more.map(|feature| format!("machina-core turns on tokio's `{feature}`")));
        }
    }
    problems
}

fn wrong_among_adapters(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for name in ADAPTERS {
        let package = package(metadata, name);
        for dependency in normal(package) {
            let on = dependency["name"].as_str().unwrap();
            let assembly = name == ASSEMBLY.0 && dependency["optional"] == true && only_for_assembly(package, on);
            if on.starts_with("machina-") && on != "machina-core" && !assembly {
                let (assembling, features) = (ASSEMBLY.0, ASSEMBLY.1.join("`, `"));
                problems
                    .push(format!("{name} depends on {on}; only {assembling} may, under its features `{features}`"));
            }
        }
    }
    problems
}

/// Whether nothing but the features that assemble bring `dependency` in.
fn only_for_assembly(package: &Value, dependency: &str) -> bool {
    let features = package["features"].as_object().unwrap();
    features.iter().filter(|(feature, _)| !ASSEMBLY.1.contains(&feature.as_str())).all(|(_, parts)| {
        texts(parts).iter().all(|part| {
            let part = part.strip_prefix("dep:").unwrap_or(part);
            part.split(['/', '?']).next() != Some(dependency)
        })
    })
}

/// Uses of other adapters in the library of `machina-http`.
fn wrong_in_sources(sources: &[Source]) -> Vec<String> {
    let library = |source: &&Source| {
        source.path.starts_with("machina-http/src")
            && !source.path.starts_with("machina-http/src/bin")
            && source.path.as_os_str() != ASSEMBLING
    };
    // A longer word, such as the name of a metric, is no crate.
    let names = |line: &str, name: &str| {
        line.split(name).skip(1).any(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
    };
    let uses = |line: &str| {
        !line.trim_start().starts_with("//") && (names(line, "machina_mcp") || names(line, "machina_store"))
    };
    sources
        .iter()
        .filter(library)
        .flat_map(|source| {
            let lines = source.text.lines().enumerate().filter(|(_, line)| uses(line));
            lines.map(|(number, line)| format!("{}:{}: {}", source.path.display(), number + 1, line.trim()))
        })
        .collect()
}

#[test]
fn the_core_depends_on_small_pure_crates_only() {
    assert_clean(wrong_in_core(&metadata()));
}

#[test]
fn adapters_depend_on_the_core_only() {
    assert_clean(wrong_among_adapters(&metadata()));
    assert_clean(wrong_in_sources(&sources()));
}

#[test]
fn there_is_one_tls_provider() {
    let tree = output_of(
        env!("CARGO"),
        &["tree", "--workspace", "--edges", "normal,build", "--prefix", "none", "--format", "{p}", "--locked"],
    );
    assert!(tree.lines().any(|line| line.starts_with("rustls ")), "this test no longer sees TLS:\n{tree}");
    let ring: Vec<_> = tree.lines().filter(|line| line.starts_with("ring ")).collect();
    assert!(ring.is_empty(), "ring is a second provider beside aws-lc-rs; `cargo tree -i ring` says who wants it");
}

#[test]
fn a_wrong_dependency_is_found() {
    let of = |name: &str, dependencies: Value, features: Value| {
        json!({"packages": [
        {"name": name, "dependencies": dependencies, "features": features}]})
    };
    let core = of(
        "machina-core",
        json!([
            {"name": "reqwest", "kind": null, "features": []},
            {"name": "tokio", "kind": null, "features": ["sync", "net"]},
            {"name": "proptest", "kind": "dev", "features": []},
        ]),
        json!({}),
    );
    let problems = wrong_in_core(&core).join("\n");
    assert!(problems.contains("reqwest") && problems.contains("`net`") && !problems.contains("proptest"), "{problems}");

    let http = |optional: bool, features: Value| {
        let mut all =
            of("machina-http", json!([{"name": "machina-mcp", "kind": null, "optional": optional}]), features);
        let others =
            ["machina-store", "machina-mcp"].map(|name| json!({"name": name, "dependencies": [], "features": {}}));
        all["packages"].as_array_mut().unwrap().extend(others);
        wrong_among_adapters(&all).len()
    };
    assert_eq!(http(true, json!({"bin": ["dep:machina-mcp"], "default": ["bin"]})), 0);
    assert_eq!(http(true, json!({"bin": [], "server": ["dep:machina-mcp"]})), 1);
    assert_eq!(http(true, json!({"bin": [], "server": ["machina-mcp?/x"]})), 1);
    assert_eq!(http(false, json!({"bin": ["machina-mcp/x"]})), 1);

    let text = "//! like machina_mcp\nuse machina_mcp::X;\nlet metric = \"machina_store_lag\";";
    let library = Source::new("machina-http/src/server/mod.rs", text);
    let binary = Source::new("machina-http/src/bin/machina/main.rs", "use machina_mcp::X;");
    let assembling = Source::new(ASSEMBLING, "use machina_mcp::X;");
    assert_eq!(wrong_in_sources(&[library, binary, assembling]).len(), 1);
}
