//! Every request that the documents print which Machina was made after, replayed
//! against a served router: `requests.json` has each with a quote of the document.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod behaviour;
mod discovery;

use std::collections::BTreeMap;

use machina_core::testing::registry_suite::settle;
use machina_core::{Sensitive, Status};
use machina_http::ServerConfig;
use serde::Deserialize;
use serde_json::{Value, json};

use support::{Answer, Server, reaching};

/// One request, as a document prints it, and what it is to be answered with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// The number of the document.
    source: String,
    /// A line of the document.
    quote: String,
    /// Method and path, with placeholders as they are printed.
    request: String,
    /// What the placeholders are filled with, besides what was kept.
    #[serde(default)]
    with: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    /// A body that is no JSON.
    raw: Option<String>,
    status: u16,
    /// What the answer looks like; see [`fits`].
    shape: Value,
    /// Values in the answer, by JSON pointer.
    #[serde(default)]
    says: BTreeMap<String, Value>,
    /// Values of the answer that fill placeholders of later rows.
    #[serde(default)]
    keep: BTreeMap<String, String>,
    /// Why the request is not done here, where it is not.
    other: Option<String>,
}

fn table() -> Vec<Row> {
    serde_json::from_str(include_str!("requests.json")).unwrap()
}

impl Row {
    fn method(&self) -> &str {
        self.request.split_once(' ').unwrap().0
    }

    fn path(&self, kept: &BTreeMap<String, String>) -> String {
        let mut path = self.request.split_once(' ').unwrap().1.to_owned();
        for (name, value) in kept.iter().chain(&self.with) {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        assert!(!path.contains(['{', '}']), "`{}` has a placeholder that nothing fills", self.request);
        path
    }

    async fn send(&self, server: &Server, kept: &BTreeMap<String, String>) -> Answer {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let body = self.raw.clone().or_else(|| self.body.as_ref().map(Value::to_string));
        server.send(self.method(), &self.path(kept), &headers, body.as_deref()).await
    }
}

const SECRET: &str = "correct horse battery staple";

/// A server with the services that the documents speak of.
async fn world() -> Server {
    let config = ServerConfig { job_secret: Some(Sensitive::secret(SECRET)), ..ServerConfig::default() };
    // Where the documents register their servers.
    let server = Server::with(config, reaching(&["127.0.0.0/8"]), axum::Router::new()).await;
    let tool = |name: &str, description: &str| json!({"name": name, "description": description, "inputSchema": {"type": "object"}});
    let context7 = server.sim.instance("context7");
    server.sim.set_tools(&context7, vec![tool("semantic_search", "Finds patterns.")]);
    let math = server.sim.instance("math");
    server.sim.set_tools(
        &math,
        vec![
            tool("calculator", "Performs basic math operations, such as to add two numbers"),
            tool("math_operations", "Advanced mathematical functions"),
        ],
    );
    server.sim.instance("company");
    server.sim.instance("off");
    server
        .register(
            json!({"name": "context7-mcp", "build_type": "fastmcp", "description": "Documentation", "required": true,
            "build_priority": "HIGH", "instances": [{"http": {"url": "http://context7.sim/mcp"}}]}),
        )
        .await;
    server
        .register(json!({"name": "math", "category": "math", "tags": ["numeric"], "version": "1.0.0",
            "instances": [{"http": {"url": "http://math.sim/mcp"}}]}))
        .await;
    server
        .register(json!({"name": "off", "enabled": false, "instances": [{"http": {"url": "http://off.sim/mcp"}}]}))
        .await;
    settle(&server.machina, "context7-mcp", Status::Healthy).await;
    settle(&server.machina, "math", Status::Healthy).await;
    server
}

/// Whether `value` looks like `shape`: an object has exactly its keys, every item
/// of an array looks like its one item, and there is one. A word is a type; `?`
/// after it allows null; `problem` is a problem document.
fn fits(shape: &Value, value: &Value, place: &str) -> Result<(), String> {
    match shape {
        Value::Object(fields) => {
            let object = value.as_object().ok_or(format!("{place}: {value} is no object"))?;
            let (mut expected, mut found): (Vec<_>, Vec<_>) = (fields.keys().collect(), object.keys().collect());
            expected.sort();
            found.sort();
            if expected != found {
                return Err(format!("{place}: expected {expected:?}, found {found:?}"));
            }
            fields.iter().try_for_each(|(name, shape)| fits(shape, &object[name], &format!("{place}/{name}")))
        }
        Value::Array(items) => {
            let array = value.as_array().filter(|array| !array.is_empty());
            let array = array.ok_or(format!("{place}: {value} is no list with items"))?;
            array.iter().enumerate().try_for_each(|(index, item)| fits(&items[0], item, &format!("{place}/{index}")))
        }
        Value::String(word) => {
            let (word, null) = word.strip_suffix('?').map_or((&**word, false), |word| (word, true));
            let right = match word {
                "string" => value.is_string(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                "problem" => ["type", "title", "status", "detail", "code"].iter().all(|name| value.get(name).is_some()),
                other => panic!("`{other}` is no word for a shape"),
            };
            let right = right || (null && value.is_null());
            if right { Ok(()) } else { Err(format!("{place}: {value} is not {word}")) }
        }
        other => panic!("{other} is no shape"),
    }
}

#[tokio::test]
async fn every_printed_request_is_answered_as_it_is_printed() {
    let (server, mut kept) = (world().await, BTreeMap::new());
    let mut wrong = Vec::new();
    for row in table() {
        let answer = row.send(&server, &kept).await;
        let what = format!("source {}, {} ({})", row.source, row.request, row.quote);
        if answer.status != row.status {
            wrong.push(format!("{what}: {} {}", answer.status, answer.text));
            continue;
        }
        if let Err(difference) = fits(&row.shape, &answer.body, "") {
            wrong.push(format!("{what}: {difference}: {}", answer.text));
        }
        for (pointer, expected) in &row.says {
            if answer.body.pointer(pointer) != Some(expected) {
                wrong.push(format!("{what}: {pointer} is not {expected}: {}", answer.text));
            }
        }
        for (name, pointer) in &row.keep {
            kept.insert(name.clone(), answer.body.pointer(pointer).unwrap().as_str().unwrap().to_owned());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_request_of_the_table_is_routed() {
    let server = world().await;
    let kept = ["serviceId", "id"].map(|name| (name.to_owned(), "context7-mcp".to_owned())).into();
    let (mut routed, mut others) = (0, 0);
    for row in table() {
        let answer = row.send(&server, &kept).await;
        match row.other {
            Some(reason) => {
                assert_eq!(answer.status, row.status, "{}: {reason}: {}", row.request, answer.text);
                others += 1;
            }
            None => {
                let nowhere = answer.text.contains("no resource has the path") || answer.status == 405;
                assert!(!nowhere, "{} is not routed: {} {}", row.request, answer.status, answer.text);
                routed += 1;
            }
        }
    }
    assert_eq!((routed, others), (40, 5), "a request was added or taken away: count again");
}

#[test]
fn the_table_has_every_source_and_only_methods_of_http() {
    let rows = table();
    let mut sources: Vec<&str> = rows.iter().map(|row| &*row.source).collect();
    sources.dedup();
    assert_eq!(sources, ["000", "001", "002", "003", "004"]);
    assert!(rows.iter().all(|row| ["GET", "POST", "PUT", "DELETE", "PATCH"].contains(&row.method())));
    assert!(rows.iter().all(|row| !row.quote.is_empty() && row.request.contains(" /")));
}
