//! Machina as an MCP server on a pipe, in front of rmcp's client and of a bare one.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::host::{Bare, Client, Host, call, legacy, meta, modern, params, structured};
use crate::upstream::{PATIENCE, Registered, echoed, tools};
use machina_core::{ErrorKind, Result, Scoped, Tasks};
use machina_mcp::server::{Exposure, serve_io};
use rmcp::model::{ClientRequest, ReadResourceRequestParams};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, PeerRequestOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A served pipe; the receiver gets what the server ends with.
fn serve(scoped: Scoped) -> (DuplexStream, oneshot::Receiver<Result<()>>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (ended, end) = oneshot::channel();
    Tasks::new().spawn("serve", async move {
        let (reader, writer) = tokio::io::split(far);
        let _ = ended.send(serve_io(scoped, Exposure::default(), reader, writer).await);
    });
    (near, end)
}

async fn client(scoped: Scoped, mode: ClientLifecycleMode) -> Client {
    let (stream, _) = serve(scoped);
    timeout(PATIENCE, Host::default().serve_with_lifecycle(stream, mode)).await.unwrap().unwrap()
}

#[tokio::test]
async fn rmcp_finds_describes_and_calls_in_both_eras() {
    let registered = Registered::open().await;
    for (mode, version) in [(legacy(), "2025-11-25"), (modern(), "2026-07-28")] {
        let client = client(registered.scoped(), mode).await;
        let info = client.peer_info().unwrap();
        assert_eq!(info.protocol_version.as_str(), version);
        assert!(info.capabilities.prompts.is_none() && info.instructions.as_ref().unwrap().contains("find_tool"));

        let names: Vec<String> =
            client.list_all_tools().await.unwrap().iter().map(|tool| tool.name.to_string()).collect();
        let own = ["find_tool", "call_tool", "list_services", "list_tools", "describe_tool"];
        let earlier = ["list_available_services", "list_available_tools", "call_service_tool"];
        assert_eq!(names, [&own[..], &earlier].concat());

        let found = structured(&client, "find_tool", json!({"query": "give back text", "limit": 2})).await;
        let best = &found["tools"][0];
        assert_eq!((&best["service"], &best["tool"]), (&json!("fixture"), &json!("echo")));
        assert_eq!(best["input_schema"], tools()[0]["inputSchema"]);
        assert!(best["score"].as_f64().unwrap() > 0.0 && found["tools"].as_array().unwrap().len() <= 2);
        let none = structured(&client, "find_tool", json!({"query": "zzzz"})).await;
        assert!(none["tools"].as_array().unwrap().is_empty() && none["hint"].is_string());

        let described = structured(&client, "describe_tool", json!({"service": "fixture", "tool": "echo"})).await;
        assert_eq!(described["definition"].to_string(), tools()[0].to_string(), "word for word");

        let arguments = json!({"service": "fixture", "tool": "echo", "arguments": {"text": "hi"}});
        let result = call(&client, "call_tool", arguments).await;
        assert_eq!(result["content"][0]["text"], "hi");
        assert_eq!(result["structuredContent"].to_string(), r#"{"b":1,"a":2}"#);
    }
}

#[tokio::test]
async fn services_and_tools_are_listed_short_and_page_by_page() {
    let registered = Registered::open().await;
    let client = client(registered.scoped(), modern()).await;
    let all = structured(&client, "list_services", json!({})).await;
    let want = json!({"services": [
        {"service": "down", "description": "", "status": "unhealthy", "tool_count": 0},
        {"service": "fixture", "description": "Answers what tests want.", "status": "healthy", "tool_count": 6},
    ]});
    assert_eq!(all, want);
    for filter in [json!({"text": "tests want"}), json!({"tag": "test"}), json!({"status": "healthy"})] {
        let some = structured(&client, "list_services", filter.clone()).await;
        assert_eq!(some["services"], json!([want["services"][1]]), "{filter}");
    }
    let first = structured(&client, "list_services", json!({"limit": 1})).await;
    let next = json!({"limit": 1, "cursor": first["next_cursor"]});
    assert_eq!(structured(&client, "list_services", next).await["services"], json!([want["services"][1]]));

    let mut names = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let page = structured(&client, "list_tools", json!({"limit": 4, "cursor": cursor})).await;
        names.extend(page["tools"].as_array().unwrap().iter().map(|tool| tool["tool"].clone()));
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(names, tools().iter().map(|tool| tool["name"].clone()).collect::<Vec<_>>());
    let own = structured(&client, "list_tools", json!({"service": "fixture", "limit": 1})).await;
    assert_eq!(own["tools"][0]["description"], "Gives a text back.");
    assert_eq!(structured(&client, "list_tools", json!({"service": "down"})).await, json!({"tools": []}));
}

#[tokio::test]
async fn earlier_names_of_the_tools_and_of_their_arguments_are_understood() {
    let registered = Registered::open().await;
    let client = client(registered.scoped(), legacy()).await;
    let services = structured(&client, "list_available_services", json!({"limit": 1})).await;
    assert_eq!(services["services"][0]["service"], "down");
    let tools = structured(&client, "list_available_tools", json!({"service_name": "fixture"})).await;
    assert_eq!(tools["tools"].as_array().unwrap().len(), 6);
    for arguments in [
        json!({"service": "fixture", "tool": "echo", "arguments": {"text": "hi"}}),
        json!({"service_name": "fixture", "tool_name": "echo", "parameters": {"text": "hi"}}),
        json!({"service": "fixture", "tool": "echo", "text": "hi"}),
    ] {
        let result = call(&client, "call_service_tool", arguments.clone()).await;
        assert_eq!(result["content"][0]["text"], "hi", "{arguments}");
    }
    let wrong = call(&client, "call_service_tool", json!({"service_name": 7})).await;
    assert!(wrong["content"][0]["text"].as_str().unwrap().contains("tool: is missing"), "{wrong}");
}

#[tokio::test]
async fn earlier_names_are_not_listed_where_the_operator_says_so() {
    let registered = Registered::open().await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (scoped, tasks) = (registered.scoped(), Tasks::new());
    let exposure = Exposure { aliases: false, ..Exposure::default() };
    tasks.spawn("serve", async move {
        let (reader, writer) = tokio::io::split(far);
        serve_io(scoped, exposure, reader, writer).await.unwrap();
    });
    let client = Host::default().serve_with_lifecycle(near, modern()).await.unwrap();
    assert_eq!(client.list_all_tools().await.unwrap().len(), 5);
    assert_eq!(client.list_all_resource_templates().await.unwrap().len(), 1);
    assert_ne!(call(&client, "list_available_services", json!({})).await["isError"], true);
    tasks.cancel();
}

#[tokio::test]
async fn a_result_passes_through_word_for_word_in_the_dress_of_the_era() {
    let registered = Registered::open().await;
    let arguments = json!({"service": "fixture", "tool": "echo", "arguments": {"text": "exotic"}});
    for era in ["legacy", "modern"] {
        let mut bare = Bare::new(serve(registered.scoped()).0);
        let mut params = json!({"name": "call_tool", "arguments": arguments});
        if era == "legacy" {
            bare.initialize().await;
        } else {
            params["_meta"] = meta();
        }
        let mut result = bare.request(json!(1), "tools/call", params).await["result"].take();
        let how = result["_meta"].as_object_mut().unwrap().remove("dev.machina/call").unwrap();
        assert_eq!(how["attempts"], 1);
        let info = result["_meta"].as_object_mut().unwrap().remove("io.modelcontextprotocol/serverInfo");
        let kind = result.as_object_mut().unwrap().remove("resultType");
        match era {
            "legacy" => assert_eq!((info, kind), (None, None)),
            _ => assert_eq!((&info.unwrap()["name"], kind), (&json!("machina"), Some(json!("complete")))),
        }
        let mut want = echoed("exotic");
        want.as_object_mut().unwrap().remove("resultType");
        want["_meta"] = json!({"trace": "t-1"});
        assert_eq!(result, want, "{era}");
        assert_eq!(result["x-more"].to_string(), want["x-more"].to_string(), "the order of keys is kept");
    }
}

#[tokio::test]
async fn failures_are_results_that_a_model_can_learn_from() {
    let registered = Registered::open().await;
    let client = client(registered.scoped(), modern()).await;
    let of = |service: &str, tool: &str| json!({"service": service, "tool": tool});
    for (tool, arguments, code, text) in [
        ("call_tool", of("gone", "echo"), "not_found", "no service is named `gone`"),
        ("call_tool", of("fixture", "ech"), "not_found", "did you mean echo?"),
        ("call_tool", of("Not A Name", "echo"), "invalid", "service: `Not A Name` is not a service name"),
        ("call_tool", json!({"tool": 7, "extra": 1}), "invalid", "service: is missing; tool: must be a string"),
        (
            "call_tool",
            json!({"service": "fixture", "tool": "echo", "arguments": "{}"}),
            "invalid",
            "arguments: must be",
        ),
        ("call_tool", of("fixture", "reject"), "rejected", "bad argument"),
        ("call_tool", of("fixture", "break_off"), "lost", "The tool may have run"),
        ("call_tool", of("fixture", "ask"), "rejected", "input_required"),
        ("call_tool", of("down", "any"), "unreachable", "connection refused"),
        ("describe_tool", of("fixture", "gone"), "not_found", "offers no tool named `gone`"),
        ("list_tools", json!({"service": "gone"}), "not_found", "no service is named `gone`"),
        ("list_tools", json!({"cursor": "%"}), "invalid", "cursor: is not a cursor"),
        ("list_services", json!({"status": "fine"}), "invalid", "status: `fine` is none of"),
        ("list_services", json!({"limit": 201}), "invalid", "limit: must be a whole number from 1 to 200"),
        ("find_tool", json!({}), "invalid", "query: is missing"),
        ("find_tool", json!({"query": " "}), "invalid", "query: must not be empty"),
    ] {
        let result = call(&client, tool, arguments.clone()).await;
        assert_eq!(result["isError"], true, "{tool} {arguments}: {result}");
        assert_eq!(result["structuredContent"]["code"], code, "{tool} {arguments}: {result}");
        let said = result["content"][0]["text"].as_str().unwrap();
        assert!(said.contains(text), "{tool} {arguments}: {said}");
    }
    let failed = call(&client, "call_tool", of("fixture", "fail")).await;
    assert_eq!((&failed["isError"], &failed["content"][0]["text"]), (&json!(true), &json!("no luck")));
    assert_eq!(failed.get("structuredContent"), None, "an upstream's own failure is passed on as it is");
}

#[tokio::test]
async fn a_principal_may_do_only_what_its_role_allows() {
    let registered = Registered::open().await;
    let client = client(registered.viewer(), modern()).await;
    assert_eq!(structured(&client, "list_services", json!({})).await["services"].as_array().unwrap().len(), 2);
    let refused = call(&client, "call_tool", json!({"service": "fixture", "tool": "echo"})).await;
    assert_eq!(refused["structuredContent"]["code"], "forbidden");
    assert_eq!(registered.seen.begun.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn services_are_documented_as_resources_without_secrets() {
    let registered = Registered::open().await;
    for mode in [legacy(), modern()] {
        let client = client(registered.scoped(), mode).await;
        let listed = client.list_all_resources().await.unwrap();
        let uris: Vec<&str> = listed.iter().map(|resource| resource.uri.as_str()).collect();
        assert_eq!(uris, ["machina://services/down", "machina://services/fixture"]);
        let templates = client.list_all_resource_templates().await.unwrap();
        assert_eq!(templates[0].uri_template, "machina://services/{+name}");
        let read = client.read_resource(ReadResourceRequestParams::new("machina://services/fixture")).await.unwrap();
        let text = serde_json::to_value(read).unwrap()["contents"][0]["text"].as_str().unwrap().to_owned();
        for part in ["# The fixture\n", "Nothing else.", "`in process`: healthy, MCP 2025-11-25", "- `echo`: Gives"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("hunter2"));
        for uri in ["machina://services/gone", "file:///etc/passwd"] {
            client.read_resource(ReadResourceRequestParams::new(uri)).await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn progress_reaches_the_host_under_its_own_token_and_cancelling_reaches_the_upstream() {
    let registered = Registered::open().await;
    for (round, mode) in [legacy(), modern()].into_iter().enumerate() {
        let client = client(registered.scoped(), mode).await;
        let request = params("call_tool", &json!({"service": "fixture", "tool": "wait_forever"}));
        let request = ClientRequest::CallToolRequest(rmcp::model::CallToolRequest::new(request));
        let handle = client.send_cancellable_request(request, PeerRequestOptions::no_options()).await.unwrap();
        let count = u32::try_from(round).unwrap() + 1;
        registered.seen.until_begun(count).await;
        let progress = &client.service().progress;
        let heard = async {
            while progress.lock().unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, heard).await.expect("progress is heard of");
        let last = progress.lock().unwrap()[1].clone();
        assert_eq!((last.progress, last.total, last.message.as_deref()), (2.0, Some(2.0), Some("step 2")));
        assert_eq!(last.progress_token, handle.progress_token);
        handle.cancel(Some("no longer wanted".to_owned())).await.unwrap();
        registered.seen.until_cancelled(count).await;
        assert_ne!(call(&client, "list_services", json!({})).await["isError"], true, "the session goes on");
    }
}

#[tokio::test]
async fn a_cancelled_call_gets_no_answer() {
    let registered = Registered::open().await;
    let mut bare = Bare::new(serve(registered.scoped()).0);
    bare.initialize().await;
    let call = json!({"jsonrpc": "2.0", "id": "c", "method": "tools/call",
        "params": {"name": "call_tool", "arguments": {"service": "fixture", "tool": "wait_forever"}}});
    bare.send(&call.to_string()).await;
    registered.seen.until_begun(1).await;
    let twice = bare.request(json!("c"), "ping", json!({})).await;
    assert_eq!(twice["error"]["code"], -32600, "an id that is in use is refused");
    bare.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c"}}"#).await;
    registered.seen.until_cancelled(1).await;
    assert_eq!(bare.request(json!("p"), "ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn when_stdin_ends_calls_are_cancelled_and_the_server_ends() {
    let registered = Registered::open().await;
    let (stream, end) = serve(registered.scoped());
    let mut bare = Bare::new(stream);
    bare.initialize().await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "call_tool", "arguments": {"service": "fixture", "tool": "wait_forever"}}});
    bare.send(&call.to_string()).await;
    registered.seen.until_begun(1).await;
    bare.writer.shutdown().await.unwrap();
    registered.seen.until_cancelled(1).await;
    timeout(PATIENCE, end).await.unwrap().unwrap().unwrap();
    assert_eq!(bare.next().await, None);
}

#[tokio::test]
async fn what_was_asked_before_stdin_ended_is_answered() {
    let registered = Registered::open().await;
    let (stream, end) = serve(registered.scoped());
    let mut bare = Bare::new(stream);
    let params = json!({"name": "call_tool", "arguments": {"service": "fixture", "tool": "echo"}, "_meta": meta()});
    bare.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()).await;
    bare.writer.shutdown().await.unwrap();
    assert_eq!(bare.next().await.unwrap()["id"], 1);
    timeout(PATIENCE, end).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_host_that_no_longer_reads_ends_the_server() {
    let registered = Registered::open().await;
    let (mut stdin, reader) = tokio::io::duplex(1024);
    let (stdout, writer) = tokio::io::duplex(1024);
    let scoped = registered.scoped();
    let serving = serve_io(scoped, Exposure::default(), reader, writer);
    drop(stdout);
    stdin.write_all(b"{}\n").await.unwrap();
    timeout(PATIENCE, serving).await.expect("the server ends although stdin is open").unwrap();
}

#[tokio::test]
async fn a_host_that_cannot_be_read_is_an_error() {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Err(std::io::Error::other("bad descriptor")))
        }
    }
    let registered = Registered::open().await;
    let error = serve_io(registered.scoped(), Exposure::default(), Broken, tokio::io::sink()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("bad descriptor"));
}

#[tokio::test]
async fn dropping_the_server_cancels_its_calls() {
    let registered = Registered::open().await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut bare = Bare::new(near);
    let (reader, writer) = tokio::io::split(far);
    let mut serving = Box::pin(serve_io(registered.scoped(), Exposure::default(), reader, writer));
    let params =
        json!({"name": "call_tool", "arguments": {"service": "fixture", "tool": "wait_forever"}, "_meta": meta()});
    bare.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()).await;
    tokio::select! {
        ended = &mut serving => panic!("the server ended: {ended:?}"),
        () = registered.seen.until_begun(1) => {}
    }
    drop(serving);
    registered.seen.until_cancelled(1).await;
}

#[tokio::test]
async fn misuse_of_the_protocol_is_a_fault_and_the_session_goes_on() {
    let registered = Registered::open().await;
    let mut bare = Bare::new(serve(registered.scoped()).0);
    let early = bare.request(json!(0), "tools/list", json!({})).await;
    assert_eq!(early["error"]["code"], -32602, "neither handshake nor `_meta`: {early}");
    assert_eq!(bare.request(json!(1), "ping", json!({})).await["result"], json!({}));
    bare.initialize().await;
    for (line, code) in [
        ("{".to_owned(), -32700),
        ("[]".to_owned(), -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#.to_owned(), -32600),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "x".repeat(4 * 1024 * 1024)), -32600),
    ] {
        bare.send(&line).await;
        let answer = bare.next().await.unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(code)));
    }
    for (method, params, code) in [
        ("no/such", json!({}), -32601),
        ("initialize", json!({}), -32602),
        ("initialize", json!({"protocolVersion": "2025-11-25", "_meta": meta()}), -32601),
        ("prompts/list", json!({}), -32601),
        ("subscriptions/listen", json!({}), -32601),
        ("tools/list", json!({"cursor": "x"}), -32602),
        ("tools/call", json!({}), -32602),
        ("tools/call", json!({"name": "echo"}), -32602),
        ("tools/call", json!({"name": "find_tool", "arguments": []}), -32602),
        ("resources/read", json!({}), -32602),
        ("resources/read", json!({"uri": "machina://services/gone"}), -32002),
        ("resources/list", json!({"cursor": "%"}), -32602),
        ("server/discover", json!({}), -32602),
        ("tools/list", json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}}), -32022),
    ] {
        let answer = bare.request(json!(2), method, params.clone()).await;
        assert_eq!(answer["error"]["code"], code, "{method} {params}: {answer}");
    }
    let modern = json!({"uri": "machina://services/gone", "_meta": meta()});
    assert_eq!(bare.request(json!(3), "resources/read", modern).await["error"]["code"], -32602);
    assert_eq!(bare.request(json!(4), "ping", json!({"_meta": meta()})).await["error"]["code"], -32601);
    let listed = bare.request(json!(5), "tools/list", json!({"_meta": meta()})).await;
    let result = &listed["result"];
    assert_eq!((&result["resultType"], &result["cacheScope"]), (&json!("complete"), &json!("public")));
    assert!(result["ttlMs"].is_u64());
}
