//! The OpenAPI document: the committed one is that of the server, and it has
//! every route. When it has changed on purpose:
//!
//!     cargo test -p machina-http --test openapi; cp target/openapi.json docs/reference/openapi.json

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use machina_core::Machina;
use machina_http::{ServerConfig, openapi_document, router};
use serde_json::{Value, json};
use support::Server;

/// What `machina serve` mounts beside the router of this crate.
const MOUNTED: [&str; 7] = [
    "/mcp",
    "/mcp/ws",
    "/mcp/{group}",
    "/mcp/{group}/ws",
    "/v0.1/servers",
    "/v0.1/servers/{serverName}/versions",
    "/v0.1/servers/{serverName}/versions/{version}",
];

fn documented() -> BTreeMap<String, Value> {
    let document = openapi_document();
    let paths = document["paths"].as_object().unwrap().clone();
    paths.into_iter().filter(|(path, _)| !MOUNTED.contains(&path.as_str())).collect()
}

#[test]
fn the_committed_document_is_that_of_the_server() {
    let built = serde_json::to_string_pretty(&openapi_document()).unwrap() + "\n";
    let written = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("openapi.json");
    std::fs::write(&written, &built).unwrap();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/openapi.json");
    let same = std::fs::read_to_string(&committed).is_ok_and(|committed| committed == built);
    assert!(same, "docs/reference/openapi.json is another one; cp {} docs/reference/openapi.json", written.display());
}

/// The paths of the router, as it shows them to a developer.
async fn routes() -> BTreeSet<String> {
    let machina = Machina::builder().open().await.unwrap();
    let shown = format!("{:?}", router(machina.clone(), &ServerConfig::default()));
    machina.close().await;
    let quoted = shown.split('"').skip(1).step_by(2);
    quoted.filter(|text| text.starts_with('/') && !text.contains('*')).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_route_is_documented() {
    let documented: BTreeSet<String> = documented().into_keys().collect();
    let routes = routes().await;
    assert!(routes.len() > 50, "the router does not show its routes any more: {routes:?}");
    assert_eq!(routes.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not documented");
    assert_eq!(documented.difference(&routes).collect::<Vec<_>>(), Vec::<&String>::new(), "no routes");
}

#[tokio::test]
async fn every_method_is_documented() {
    let server = Server::start().await;
    for (path, item) in documented() {
        let address = path.replace(['{', '}'], "");
        let refused = server.send("TRACE", &address, &[], None).await;
        assert_eq!(refused.status, 405, "{path}: {}", refused.text);
        let allowed = refused.header("allow").split(',').map(str::trim).filter(|method| *method != "HEAD");
        let allowed: BTreeSet<String> = allowed.map(str::to_lowercase).collect();
        let listed: BTreeSet<String> = item.as_object().unwrap().keys().cloned().collect();
        assert_eq!(allowed, listed, "{path}");
    }
}

/// Every value of `key` in `value`.
fn each<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|value| each(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| each(value, key, found)),
        _ => {}
    }
}

#[test]
fn references_lead_somewhere_and_ids_are_unique() {
    let document = openapi_document();
    let mut references = Vec::new();
    each(&document, "$ref", &mut references);
    let mut used = BTreeSet::new();
    for reference in references {
        let pointer = reference.as_str().unwrap().trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        used.insert(pointer.to_owned());
    }
    for (kind, components) in document["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys().filter(|name| *name != "Event") {
            assert!(used.contains(&format!("/components/{kind}/{name}")), "nothing uses {kind}/{name}");
        }
    }
    let mut ids = Vec::new();
    each(&document["paths"], "operationId", &mut ids);
    let unique: BTreeSet<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(unique.len(), ids.len());
}

#[test]
fn every_answer_is_described() {
    let document = openapi_document();
    let mut all = Vec::new();
    each(&document["paths"], "responses", &mut all);
    assert!(all.len() > 60);
    for (status, answer) in all.iter().flat_map(|answers| answers.as_object().unwrap()) {
        let answer = answer["$ref"].as_str().map_or(answer, |to| document.pointer(&to[1..]).unwrap());
        assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{status}: {answer}");
    }
}

#[tokio::test]
async fn it_is_served() {
    let server = Server::start().await;
    let answer = server.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.body, openapi_document());
    let known = server.send("GET", "/openapi.json", &[("if-none-match", answer.header("etag"))], None).await;
    assert_eq!((known.status, known.text.as_str()), (304, ""));
    server.get("/openapi.json?x=1").await.assert_problem("a parameter", 400, "invalid");
}

#[tokio::test]
async fn the_examples_are_taken() {
    let server = Server::start().await;
    let document = openapi_document();
    let example = |path: &str, method: &str| {
        let operation = &document["paths"][path][method];
        operation["requestBody"]["content"]["application/json"]["example"].clone()
    };
    server.register(json!({"name": "a"})).await;
    for path in ["/api/v1/services", "/api/v1/services:bulk", "/api/v1/groups", "/api/v1/tools:find"] {
        let answer = server.post(path, example(path, "post")).await;
        assert!(answer.status < 300, "{path}: {}", answer.text);
    }
    let posted = [
        ("/api/v1/services/{service}/instances", "/api/v1/services/a/instances"),
        ("/api/v1/services/{service}/maintenance", "/api/v1/services/a/maintenance"),
    ];
    for (path, address) in posted {
        let answer = server.post(address, example(path, "post")).await;
        assert!(answer.status < 300, "{path}: {}", answer.text);
    }
    for (method, path, address) in [
        ("patch", "/api/v1/services/{service}", "/api/v1/services/a"),
        ("put", "/api/v1/services/{service}", "/api/v1/services/docs"),
        ("put", "/api/v1/groups/{group}", "/api/v1/groups/reading"),
    ] {
        let body = example(path, method).to_string();
        let answer = server.send(&method.to_uppercase(), address, &[], Some(&body)).await;
        assert!(answer.status < 300, "{path}: {}", answer.text);
    }
}

fn unpacked(bytes: &[u8]) -> String {
    std::io::read_to_string(flate2::read::GzDecoder::new(bytes)).unwrap()
}

/// Everything that a page asks for, relative to itself.
fn assets(html: &str) -> Vec<&str> {
    let marks = ["src=\"", "href=\""];
    let found = marks.iter().flat_map(|mark| html.split(mark).skip(1)).map(|rest| rest.split('"').next().unwrap());
    found.collect()
}

#[tokio::test]
async fn the_page_comes_from_the_server_alone() {
    let server = Server::start().await;
    let policy = |answer: &support::Answer| {
        let policy = answer.header("content-security-policy").to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("http"), "{policy}");
    };
    let plain = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let moved = plain.get(format!("{}/docs", server.url)).send().await.unwrap();
    assert_eq!((moved.status().as_u16(), &moved.headers()["location"]), (308, &"/docs/".parse().unwrap()));
    let page = plain.get(format!("{}/docs/", server.url)).send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html");
    let html = unpacked(&page.bytes().await.unwrap());
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<style"), "{html}");
    let assets = assets(&html);
    assert!(assets.len() >= 5, "{html}");
    for asset in assets {
        let name = asset.trim_start_matches("./");
        assert!(!name.contains(['/', ':']), "{asset}");
        let answer = server.get(&format!("/docs/{name}")).await;
        assert_eq!(answer.status, 200, "{asset}");
        policy(&answer);
    }
    let begin = server.get("/docs/swagger-initializer.js").await.text;
    assert!(begin.contains("../openapi.json") && begin.contains("\"validatorUrl\": \"none\""), "{begin}");
    assert!(!begin.contains("http"), "{begin}");
    server.get("/docs/no-such-file").await.assert_problem("no file", 404, "not_found");
    let refused = server.send("GET", "/docs/index.html", &[("accept-encoding", "identity")], None).await;
    refused.assert_problem("no gzip", 400, "invalid");
}
