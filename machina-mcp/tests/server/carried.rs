//! What is carried to services and back besides the thing itself: the context of a
//! trace, answers that are no results, and news of what they publish.

use std::time::Duration;

use machina_core::{AdminState, Tasks};
use machina_mcp::server::{Exposure, ToolPrefix};
use serde_json::{Value, json};

use crate::host::{Bare, meta};
use crate::library::{Asking, Library, Shelf, flat, prompt, resource, served, tool};
use crate::upstream::PATIENCE;

#[tokio::test]
async fn what_is_no_result_is_refused_in_both_eras() {
    let tools = ["ask", "begin", "begin_older", "only_as_task", "fine"].map(tool).to_vec();
    let mut shelf = Shelf { tools, prompts: vec![prompt("asking")], ..Shelf::default() };
    shelf.tools[3]["execution"] = json!({"taskSupport": "required"});
    shelf.resources = vec![resource("test://asking")];
    let (library, tasks) = (Library::open(&[("s", shelf)]).await, Tasks::new());
    for era in ["legacy", "modern"] {
        let mut bare = Bare::new(served(&library, &tasks, flat(ToolPrefix::None)));
        let with_meta = |mut params: Value| {
            if era == "modern" {
                params["_meta"] = meta();
            }
            params
        };
        if era == "legacy" {
            bare.initialize().await;
        }
        for (name, said, outcome) in [
            ("ask", "asks for input", "unknown"),
            ("begin", "began a task", "unknown"),
            ("begin_older", "began a task", "unknown"),
            ("only_as_task", "runs as a task only", "not_executed"),
        ] {
            let result = bare.request(json!(1), "tools/call", with_meta(json!({"name": name}))).await["result"].take();
            let error = &result["_meta"]["dev.machina/error"];
            assert_eq!((&result["isError"], &error["code"]), (&json!(true), &json!("rejected")), "{result}");
            assert_eq!((&error["context"]["outcome"], &error["context"]["tool"]), (&json!(outcome), &json!(name)));
            assert!(result["content"][0]["text"].as_str().unwrap().contains(said), "{result}");
            assert!(result.get("requestState").is_none() && result.get("taskId").is_none(), "{result}");
            assert_eq!(result.get("resultType"), (era == "modern").then_some(&json!("complete")));
        }
        for (method, params) in
            [("prompts/get", json!({"name": "asking"})), ("resources/read", json!({"uri": "test://asking"}))]
        {
            let answer = bare.request(json!(2), method, with_meta(params)).await;
            assert_eq!(
                (&answer["error"]["code"], &answer["error"]["data"]["code"]),
                (&json!(-32000), &json!("rejected"))
            );
        }
        // Whoever carries no tasks takes such a call as any other.
        let params = with_meta(json!({"name": "fine", "arguments": {"a": 1}, "task": {"ttl": 60000}}));
        let result = bare.request(json!(3), "tools/call", params).await["result"].take();
        assert_eq!((&result["structuredContent"]["params"], result.get("task")), (&json!({"a": 1}), None));
        for method in [
            "tasks/get",
            "tasks/list",
            "tasks/result",
            "tasks/cancel",
            "sampling/createMessage",
            "elicitation/create",
            "roots/list",
            "resources/subscribe",
            "resources/unsubscribe",
        ] {
            let answer =
                bare.request(json!(4), method, with_meta(json!({"taskId": "t", "uri": "test://asking"}))).await;
            assert_eq!(answer["error"]["code"], -32601, "{method} {era}: {answer}");
        }
        let level = bare.request(json!(5), "logging/setLevel", with_meta(json!({"level": "info"}))).await;
        let wrong = bare.request(json!(6), "logging/setLevel", with_meta(json!({"level": "loud"}))).await;
        match era {
            "legacy" => assert_eq!((&level["result"], &wrong["error"]["code"]), (&json!({}), &json!(-32602))),
            _ => assert_eq!((&level["error"]["code"], &wrong["error"]["code"]), (&json!(-32601), &json!(-32601))),
        }
    }
    tasks.cancel();
}

#[tokio::test]
async fn the_context_of_a_trace_reaches_the_service_and_nothing_else_of_a_hosts_meta() {
    let shelf = Shelf {
        tools: vec![tool("t")],
        prompts: vec![prompt("p")],
        resources: vec![resource("test://r")],
        completes: true,
        ..Shelf::default()
    };
    let (library, tasks) = (Library::open(&[("s", shelf)]).await, Tasks::new());
    let trace = json!({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01", "tracestate": "k=v", "baggage": "u=1"});
    let call = json!({"name": "call_tool", "arguments": {"service": "s", "tool": "t"}});
    for (exposure, method, mut params) in [
        (flat(ToolPrefix::None), "tools/call", json!({"name": "t"})),
        (Exposure::default(), "tools/call", call),
        (flat(ToolPrefix::None), "prompts/get", json!({"name": "p"})),
        (flat(ToolPrefix::None), "resources/read", json!({"uri": "test://r"})),
        (flat(ToolPrefix::None), "completion/complete", json!({"ref": {"type": "ref/prompt", "name": "p"}})),
    ] {
        let mut bare = Bare::new(served(&library, &tasks, exposure));
        params["_meta"] = meta();
        params["_meta"]["com.example/other"] = json!(1);
        for (key, value) in trace.as_object().unwrap() {
            params["_meta"][key] = value.clone();
        }
        let result = bare.request(json!(1), method, params).await["result"].take();
        let seen = if method == "tools/call" { &result["structuredContent"] } else { &result["_meta"]["seen"] };
        assert_eq!(seen["meta"], trace, "{method}: {result}");
    }
    tasks.cancel();
}

#[tokio::test]
async fn a_list_follows_what_services_publish() {
    let shelf = |n: usize| Shelf {
        prompts: (0..n).map(|index| prompt(&format!("p{index}"))).collect(),
        resources: (0..n).map(|index| resource(&format!("test://{index}"))).collect(),
        ..Shelf::default()
    };
    let (library, tasks) = (Library::open(&[("s", shelf(1))]).await, Tasks::new());
    let mut host = Asking::new(&library, &tasks, flat(ToolPrefix::None));
    assert_eq!(host.keys("prompts/list", "prompts", "name").await, ["p0"]);
    assert_eq!(host.uris().await, ["machina://services/s", "test://0"]);
    library.publish("s", shelf(2));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while host.keys("prompts/list", "prompts", "name").await.len() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "the list follows");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(host.uris().await, ["machina://services/s", "test://0", "test://1"]);
    library.machina.set_admin_state("s", None, AdminState::Maintenance).await.unwrap();
    assert_eq!(host.uris().await, ["machina://services/s"], "what is taken out is documented and offers nothing");
    assert!(host.keys("prompts/list", "prompts", "name").await.is_empty());
    assert_eq!(host.code("prompts/list", json!({"cursor": "%"})).await, -32602);
    tasks.cancel();
}
