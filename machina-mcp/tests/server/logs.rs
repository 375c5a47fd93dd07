//! What belongs to a call besides its result: what the service logs meanwhile, a
//! capability that it misses, and arguments that are repeated in headers.

use machina_core::Tasks;
use machina_mcp::server::{Exposure, HttpServerConfig, ToolMode, ToolPrefix};
use serde_json::{Value, json};

use crate::host::{Bare, meta};
use crate::library::{Library, Shelf, flat, prompt, resource, served, tool};
use crate::served::{Mounted, events, mount, request};

const LEVEL: &str = "io.modelcontextprotocol/logLevel";

async fn library() -> Library {
    let mut tools = ["log", "lacking", "fine"].map(tool).to_vec();
    tools[2]["inputSchema"]["properties"] = json!({"region": {"type": "string", "x-mcp-header": "Region"}});
    let (prompts, resources) = (vec![prompt("lacking")], vec![resource("test://lacking")]);
    Library::open(&[("s", Shelf { tools, prompts, resources, ..Shelf::default() })]).await
}

fn http(library: &Library) -> impl Future<Output = Mounted> {
    let (mode, prefix) = (ToolMode::Flat, ToolPrefix::None);
    mount(library.machina.clone(), HttpServerConfig { mode, prefix, ..HttpServerConfig::default() })
}

fn modern(params: Value, level: Option<&str>) -> Value {
    let mut params = params;
    params["_meta"] = meta();
    if let Some(level) = level {
        params["_meta"][LEVEL] = level.into();
    }
    params
}

/// The levels and loggers of the log messages among `messages`.
fn logged(messages: &[Value]) -> Vec<(String, String)> {
    let lines = messages.iter().filter(|message| message["method"] == "notifications/message");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    lines.map(|line| (text(&line["params"]["level"]), text(&line["params"]["logger"]))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(level, logger)| ((*level).to_owned(), (*logger).to_owned())).collect()
}

/// The messages up to the answer to a call of `name`.
async fn call(bare: &mut Bare, params: Value) -> Vec<Value> {
    bare.send(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string()).await;
    let mut messages = Vec::new();
    loop {
        messages.push(bare.next().await.unwrap());
        if messages.last().unwrap()["id"] == 7 {
            return messages;
        }
    }
}

#[tokio::test]
async fn a_host_of_the_older_era_hears_what_it_set_its_level_to() {
    let (library, tasks) = (library().await, Tasks::new());
    let through = json!({"name": "call_tool", "arguments": {"service": "s", "tool": "log"}});
    for (exposure, params) in [(flat(ToolPrefix::None), json!({"name": "log"})), (Exposure::default(), through)] {
        let mut bare = Bare::new(served(&library, &tasks, exposure));
        let params_of_hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "b"}});
        let hello = bare.request(json!(1), "initialize", params_of_hello).await;
        assert_eq!(hello["result"]["capabilities"]["logging"], json!({}));
        let silent = call(&mut bare, params.clone()).await;
        let result = &silent[0]["result"]["structuredContent"];
        assert_eq!((silent.len(), &result["wanted"]), (1, &json!(false)), "who asks for nothing costs nothing");
        for (level, heard) in [
            ("warning", pairs(&[("warning", "s/io"), ("error", "s/disk")])),
            ("emergency", Vec::new()),
            ("debug", pairs(&[("debug", "s/io"), ("warning", "s/io"), ("error", "s/disk")])),
        ] {
            let set = bare.request(json!(2), "logging/setLevel", json!({"level": level})).await;
            assert_eq!(set["result"], json!({}));
            let messages = call(&mut bare, params.clone()).await;
            assert_eq!(logged(&messages), heard);
            let meta = &messages.last().unwrap()["result"]["structuredContent"]["meta"];
            assert_eq!(meta, &json!({LEVEL: level}), "the service is told the level");
        }
    }
    tasks.cancel();
}

#[tokio::test]
async fn a_host_of_the_stateless_era_hears_what_each_request_asks_for() {
    let (library, tasks) = (library().await, Tasks::new());
    let mut bare = Bare::new(served(&library, &tasks, flat(ToolPrefix::None)));
    for (level, heard) in
        [(Some("error"), pairs(&[("error", "s/disk")])), (None, Vec::new()), (Some("odd"), Vec::new())]
    {
        let messages = call(&mut bare, modern(json!({"name": "log"}), level)).await;
        assert_eq!(logged(&messages), heard, "{level:?}");
        let answer = messages.last().unwrap();
        assert_eq!(answer["result"]["structuredContent"]["wanted"], level == Some("error"));
    }
    tasks.cancel();
}

#[tokio::test]
async fn over_http_logs_come_on_the_stream_of_the_call_and_a_level_is_of_its_session() {
    let library = library().await;
    let served = http(&library).await;
    let (one, other) = (served.session("mcp").await, served.session("mcp").await);
    let level = request("logging/setLevel", json!({"level": "error"}));
    assert_eq!(served.post(&[("mcp-session-id", &one)], &level).await.status(), 200);
    let calling = request("tools/call", json!({"name": "log"}));
    let heard = served.post(&[("mcp-session-id", &one)], &calling).await.text().await.unwrap();
    assert_eq!(logged(&events(&heard)), pairs(&[("error", "s/disk")]));
    let silent = served.post(&[("mcp-session-id", &other)], &calling).await.text().await.unwrap();
    assert!(silent.starts_with('{') && silent.contains(r#""wanted":false"#), "{silent}");
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "log")];
    let calling = request("tools/call", modern(json!({"name": "log"}), Some("debug")));
    let heard = served.post(&headers, &calling).await.text().await.unwrap();
    assert_eq!(logged(&events(&heard)).len(), 3, "{heard}");
}

#[tokio::test]
async fn a_capability_that_a_service_misses_is_a_fault_of_the_request() {
    let library = library().await;
    let served = http(&library).await;
    for (method, key, name) in [
        ("tools/call", "name", "lacking"),
        ("prompts/get", "name", "lacking"),
        ("resources/read", "uri", "test://lacking"),
    ] {
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method), ("mcp-name", name)];
        let response = served.post(&headers, &request(method, modern(json!({key: name}), None))).await;
        assert_eq!(response.status(), 400, "{method}");
        let answer: Value = response.json().await.unwrap();
        let mut data = json!({"requiredCapabilities": {"sampling": {}}});
        if key == "uri" {
            data["uri"] = name.into();
        }
        assert_eq!((&answer["error"]["code"], &answer["error"]["data"]), (&json!(-32021), &data), "{answer}");
        assert_eq!(answer["id"], 1);
    }
    let session = served.session("mcp").await;
    let calling = request("tools/call", json!({"name": "lacking"}));
    let response = served.post(&[("mcp-session-id", &session)], &calling).await;
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    let context = &answer["result"]["_meta"]["dev.machina/error"]["context"];
    assert_eq!((&answer["result"]["isError"], &context["upstream_code"]), (&json!(true), &json!(-32021)));
}

#[tokio::test]
async fn arguments_that_headers_repeat_must_be_the_same_there() {
    let library = library().await;
    let served = http(&library).await;
    let usual = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "fine")];
    let body = |arguments| request("tools/call", modern(json!({"name": "fine", "arguments": arguments}), None));
    for (value, arguments, status) in [
        (Some("eu"), json!({"region": "eu"}), 200),
        (Some("=?base64?ZXU=?="), json!({"region": "eu"}), 200),
        (None, json!({}), 200),
        (None, json!({"region": "eu"}), 400),
        (Some("us"), json!({"region": "eu"}), 400),
        (Some("=?base64?ZXU?="), json!({"region": "eu"}), 400),
    ] {
        let mut headers = usual.to_vec();
        headers.extend(value.map(|value| ("Mcp-Param-Region", value)));
        let response = served.post(&headers, &body(arguments)).await;
        assert_eq!(response.status(), status, "{value:?}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["code"] == -32020, status == 400, "{answer}");
    }
    // Before there were such headers, nobody sends them.
    let session = served.session("mcp").await;
    let calling = request("tools/call", json!({"name": "fine", "arguments": {"region": "eu"}}));
    assert_eq!(served.post(&[("mcp-session-id", &session)], &calling).await.status(), 200);
}

#[tokio::test]
async fn a_change_of_prompts_or_resources_alone_is_told_in_both_eras() {
    let (library, tasks) = (library().await, Tasks::new());
    let mut older = Bare::new(served(&library, &tasks, flat(ToolPrefix::None)));
    older.initialize().await;
    let mut newer = Bare::new(served(&library, &tasks, flat(ToolPrefix::None)));
    let filter = json!({"promptsListChanged": true, "resourcesListChanged": true});
    let listen = modern(json!({"notifications": filter}), None);
    newer.send(&request("subscriptions/listen", listen).to_string()).await;
    assert_eq!(newer.next().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    let mut shelf =
        Shelf { prompts: vec![prompt("other")], resources: vec![resource("test://lacking")], ..Shelf::default() };
    shelf.tools =
        library.machina.get("s").unwrap().tools().iter().map(|offered| offered.tool.definition().clone()).collect();
    library.publish("s", shelf.clone());
    for host in [&mut older, &mut newer] {
        assert_eq!(host.next().await.unwrap()["method"], "notifications/prompts/list_changed");
    }
    shelf.resources.push(resource("test://more"));
    library.publish("s", shelf);
    for host in [&mut older, &mut newer] {
        assert_eq!(host.next().await.unwrap()["method"], "notifications/resources/list_changed");
    }
    tasks.cancel();
}
