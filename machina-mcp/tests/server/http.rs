//! Machina as an MCP server over Streamable HTTP, in front of rmcp's client and
//! of one that sees every header.

use std::time::Duration;

use crate::host::{call, legacy, meta, modern, params, structured};
use crate::served::{MODERN, calling, events, request, serve};
use crate::upstream::{PATIENCE, echoed};
use machina_mcp::server::HttpServerConfig;
use rmcp::model::ClientRequest;
use rmcp::service::PeerRequestOptions;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn rmcp_finds_and_calls_in_both_eras_on_one_endpoint() {
    let served = serve(HttpServerConfig::default()).await;
    for (mode, version) in [(legacy(), "2025-11-25"), (modern(), "2026-07-28")] {
        let client = served.client(mode).await;
        assert_eq!(client.peer_info().unwrap().protocol_version.as_str(), version);
        assert_eq!(client.list_all_tools().await.unwrap().len(), 8);
        let found = structured(&client, "find_tool", json!({"query": "give back text"})).await;
        assert_eq!(found["tools"][0]["tool"], "echo");
        let arguments = json!({"service": "fixture", "tool": "echo", "arguments": {"text": "hi"}});
        assert_eq!(call(&client, "call_tool", arguments).await["content"][0]["text"], "hi");
        let failed = call(&client, "call_tool", json!({"service": "fixture", "tool": "fail"})).await;
        assert_eq!(failed["isError"], true);
        let missing = call(&client, "call_tool", json!({"service": "gone", "tool": "x"})).await;
        assert_eq!(missing["structuredContent"]["code"], "not_found");
        assert_eq!(client.list_all_resources().await.unwrap().len(), 2);
        client.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn progress_reaches_rmcp_and_its_cancelling_the_upstream_in_both_eras() {
    let served = serve(HttpServerConfig::default()).await;
    for (mode, count) in [(legacy(), 1), (modern(), 2)] {
        let client = served.client(mode).await;
        let request = params("call_tool", &json!({"service": "fixture", "tool": "wait_forever"}));
        let request = ClientRequest::CallToolRequest(rmcp::model::CallToolRequest::new(request));
        let handle = client.send_cancellable_request(request, PeerRequestOptions::no_options()).await.unwrap();
        served.registered.seen.until_begun(count).await;
        let progress = &client.service().progress;
        let heard = async {
            while progress.lock().unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, heard).await.expect("progress is heard of");
        assert_eq!(progress.lock().unwrap()[0].progress_token, handle.progress_token);
        handle.cancel(None).await.unwrap();
        served.registered.seen.until_cancelled(count).await;
    }
}

#[tokio::test]
async fn a_result_passes_through_word_for_word_as_one_document() {
    let served = serve(HttpServerConfig::default()).await;
    let response = served.post(&MODERN, &calling("echo", json!({"_meta": meta()}))).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let (result, want) = (&answer["result"], echoed(""));
    assert_eq!((&result["content"], &result["x-more"]), (&want["content"], &want["x-more"]));
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "machina");
    assert_eq!(result["resultType"], "complete");

    let plain = served.post(&[("accept", "application/json")], &calling("echo", json!({}))).await;
    let answer: Value = serde_json::from_str(&plain.text().await.unwrap()).unwrap();
    assert_eq!(answer["result"].get("resultType"), None, "a host that names no revision is of the older era");
}

#[tokio::test]
async fn a_host_that_reads_events_only_gets_events() {
    let served = serve(HttpServerConfig::default()).await;
    let response = served.post(&[("accept", "text/event-stream")], &calling("echo", json!({}))).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = events(&response.text().await.unwrap());
    assert_eq!((events.len(), &events[0]["id"]), (1, &json!(1)));
}

#[tokio::test]
async fn a_long_call_becomes_a_stream_with_signs_of_life_that_ends_with_its_session() {
    let config = HttpServerConfig {
        stream_after: Duration::from_millis(20),
        keep_alive: Duration::from_millis(20),
        ..HttpServerConfig::default()
    };
    let served = serve(config).await;
    let session = served.session("mcp").await;
    let mut response = served.post(&[("mcp-session-id", &session)], &calling("wait_forever", json!({}))).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.chunk().await.unwrap().unwrap(), ": keep-alive\n\n");
    let url = format!("http://{}/mcp", served.address);
    let delete = || reqwest::Client::new().delete(&url).header("mcp-session-id", &session).send();
    assert_eq!(delete().await.unwrap().status(), 204);
    served.registered.seen.until_cancelled(1).await;
    let rest = timeout(PATIENCE, response.text()).await.unwrap().unwrap();
    assert!(events(&rest).is_empty(), "a cancelled call gets no answer: {rest}");
    assert_eq!(delete().await.unwrap().status(), 404);
    assert_eq!(served.status(&[("mcp-session-id", &session)], &request("ping", json!({}))).await, 404);
}

#[tokio::test]
async fn a_notification_cancels_a_call_of_its_own_session_only() {
    let served = serve(HttpServerConfig::default()).await;
    let (ours, other) = (served.session("mcp").await, served.session("mcp").await);
    let waits = calling("wait_forever", json!({"_meta": {"progressToken": "p-1"}}));
    let response = served.post(&[("mcp-session-id", &ours)], &waits).await;
    served.registered.seen.until_begun(1).await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(served.status(&[("mcp-session-id", &other)], &cancel).await, 202);
    assert_eq!(served.status(&[], &cancel).await, 202);
    assert_eq!(served.status(&[("mcp-session-id", "unknown")], &cancel).await, 404);
    assert_eq!(served.status(&[("mcp-session-id", &ours)], &waits).await, 400, "the id is in use");
    assert_eq!(served.registered.seen.cancelled.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(served.status(&[("mcp-session-id", &ours)], &cancel).await, 202);
    served.registered.seen.until_cancelled(1).await;
    let told = events(&timeout(PATIENCE, response.text()).await.unwrap().unwrap());
    assert_eq!(told.len(), 2, "progress, and no answer: {told:?}");
    assert!(told.iter().all(|event| event["params"]["progressToken"] == "p-1"));
}

#[tokio::test]
async fn a_host_that_hangs_up_cancels_its_call_before_and_during_the_stream() {
    let config = HttpServerConfig { stream_after: Duration::from_millis(300), ..HttpServerConfig::default() };
    let served = serve(config).await;
    for (count, streaming) in [(1, false), (2, true)] {
        let body = calling("wait_forever", json!({})).to_string();
        let mut stream = TcpStream::connect(&served.address).await.unwrap();
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
            served.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        served.registered.seen.until_begun(count).await;
        if streaming {
            let mut first = [0; 64];
            assert!(timeout(PATIENCE, stream.read(&mut first)).await.unwrap().unwrap() > 0);
        }
        drop(stream);
        served.registered.seen.until_cancelled(count).await;
    }
}

#[tokio::test]
async fn pages_of_others_and_wrong_media_are_refused() {
    let served = serve(HttpServerConfig::default()).await;
    let ping = request("ping", json!({}));
    assert_eq!(served.status(&[], &ping).await, 200);
    assert_eq!(served.status(&[("host", "evil.example")], &ping).await, 403);
    assert_eq!(served.status(&[("origin", "https://evil.example")], &ping).await, 403);
    assert_eq!(served.status(&[("origin", &format!("http://{}", served.address))], &ping).await, 200);
    assert_eq!(served.status(&[("content-type", "text/plain")], &ping).await, 415);
    assert_eq!(served.status(&[("accept", "text/html")], &ping).await, 406);
    let refused = served.post(&[("x-user", "nobody")], &ping).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
    let get = reqwest::get(format!("http://{}/mcp", served.address)).await.unwrap();
    assert_eq!((get.status().as_u16(), &get.headers()["allow"]), (405, &"POST, DELETE, OPTIONS".parse().unwrap()));
    let put = reqwest::Client::new().put(format!("http://{}/mcp", served.address)).send().await.unwrap();
    assert_eq!((put.status().as_u16(), &put.headers()["allow"]), (405, &"GET, POST, DELETE, OPTIONS".parse().unwrap()));
}

/// Headers and a message, and the status and code that they get.
type Case<'a> = (&'a [(&'a str, &'a str)], Value, u16, i64);

#[tokio::test]
async fn malformed_messages_are_refused_with_the_status_and_code_of_their_era() {
    let served = serve(HttpServerConfig { message_bytes_max: 10_000, ..HttpServerConfig::default() }).await;
    let version = ("mcp-protocol-version", "2026-07-28");
    let future = ("mcp-protocol-version", "2099-01-01");
    let list = ("mcp-method", "tools/list");
    let of_future = json!({"io.modelcontextprotocol/protocolVersion": "2099-01-01"});
    let no_capabilities = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let cases: [Case<'_>; 13] = [
        (&[], json!([]), 400, -32600),
        (&[], json!({"jsonrpc": "2.0", "id": {}, "method": "ping"}), 400, -32600),
        (&[], request(&"x".repeat(10_000), json!({})), 413, -32600),
        (&[("mcp-protocol-version", "1999-01-01")], request("ping", json!({})), 400, -32022),
        (&[("mcp-session-id", "unknown")], request("ping", json!({})), 404, -32000),
        (&[], request("no/such", json!({})), 200, -32601),
        (&[version, list], request("tools/list", json!({})), 400, -32602),
        (&[version, list], request("tools/list", json!({"_meta": no_capabilities})), 400, -32602),
        (&[future, list], request("tools/list", json!({"_meta": of_future})), 400, -32022),
        (&[version], request("tools/list", json!({"_meta": meta()})), 400, -32020),
        (&[version, ("mcp-method", "initialize")], request("initialize", json!({"_meta": meta()})), 404, -32601),
        (&[version, ("mcp-method", "ping")], request("ping", json!({"_meta": meta()})), 404, -32601),
        (&[version, list], request("tools/list", json!({"_meta": meta(), "cursor": "x"})), 200, -32602),
    ];
    for (headers, body, status, code) in cases {
        let response = served.post(headers, &body).await;
        let shown = body.to_string().chars().take(90).collect::<String>();
        assert_eq!(response.status().as_u16(), status, "{headers:?} {shown}");
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(answer["error"]["code"], code, "{headers:?} {shown}: {answer}");
    }
}

#[tokio::test]
async fn a_message_in_which_a_key_is_there_twice_is_refused() {
    let served = serve(HttpServerConfig::default()).await;
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","id":2}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find_tool","arguments":{"query":"a","query":"b"}}}"#,
    ] {
        let post = reqwest::Client::new().post(format!("http://{}/mcp", served.address));
        let response = post.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(response.status(), 400);
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32700), &Value::Null), "{answer}");
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_ask_and_read() {
    let page = "https://app.example";
    let config = HttpServerConfig { allowed_origins: vec![page.to_owned()], ..HttpServerConfig::default() };
    let served = serve(config).await;
    let url = format!("http://{}/mcp", served.address);
    let preflight = async |origin: &str| {
        let asks = reqwest::Client::new().request(http::Method::OPTIONS, &url).header("origin", origin);
        let asks = asks.header("access-control-request-method", "POST").header("x-user", "nobody");
        asks.header("access-control-request-headers", "content-type,mcp-method,mcp-param-x").send().await.unwrap()
    };
    let allowed = preflight(page).await;
    assert_eq!(allowed.status(), 204);
    for (header, value) in [
        ("access-control-allow-origin", page),
        ("access-control-allow-methods", "GET, POST, DELETE"),
        ("access-control-allow-headers", "content-type,mcp-method,mcp-param-x"),
        ("access-control-max-age", "7200"),
        ("vary", "origin"),
    ] {
        assert_eq!(allowed.headers()[header], value);
    }
    let foreign = preflight("https://evil.example").await;
    assert_eq!((foreign.status().as_u16(), foreign.headers().get("access-control-allow-origin")), (403, None));
    let ping = request("ping", json!({}));
    for (headers, status) in [(vec![("origin", page)], 200), (vec![("origin", page), ("x-user", "nobody")], 401)] {
        let response = served.post(&headers, &ping).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["access-control-allow-origin"]),
            (status, &page.parse().unwrap())
        );
        assert!(response.headers()["access-control-expose-headers"].to_str().unwrap().contains("Mcp-Session-Id"));
    }
    assert_eq!(served.post(&[], &ping).await.headers().get("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_group_that_does_not_exist_is_not_found() {
    let served = serve(HttpServerConfig::default()).await;
    let url = format!("http://{}/mcp/none", served.address);
    let post = reqwest::Client::new().post(url).header("content-type", "application/json");
    let response = post.body(request("ping", json!({})).to_string()).send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert!(response.text().await.unwrap().contains("none"));
}

#[tokio::test]
async fn a_message_that_does_not_come_is_not_waited_for() {
    let config = HttpServerConfig { message_timeout: Duration::from_millis(50), ..HttpServerConfig::default() };
    let served = serve(config).await;
    let mut stream = TcpStream::connect(&served.address).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{{",
        served.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_message_that_breaks_off_is_refused() {
    let served = serve(HttpServerConfig::default()).await;
    let mut stream = TcpStream::connect(&served.address).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\nnot a chunk\r\n",
        served.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 400");
}

#[tokio::test]
async fn when_every_session_is_busy_no_more_are_opened() {
    let served = serve(HttpServerConfig { sessions_max: 1, ..HttpServerConfig::default() }).await;
    let session = served.session("mcp").await;
    let waits = calling("wait_forever", json!({"_meta": {"progressToken": 7}}));
    let _response = served.post(&[("mcp-session-id", &session)], &waits).await;
    served.registered.seen.until_begun(1).await;
    assert_eq!(served.status(&[], &request("initialize", json!({"protocolVersion": "2025-11-25"}))).await, 503);
}

#[tokio::test]
async fn a_session_belongs_to_its_principal() {
    let served = serve(HttpServerConfig::default()).await;
    let session = served.session("alice").await;
    let ping = request("ping", json!({}));
    assert_eq!(served.status(&[("mcp-session-id", &session), ("x-user", "alice")], &ping).await, 200);
    assert_eq!(served.status(&[("mcp-session-id", &session), ("x-user", "bob")], &ping).await, 404);
}

#[tokio::test]
async fn no_more_calls_run_than_allowed_and_closing_ends_them() {
    let served = serve(HttpServerConfig { requests_max: 1, ..HttpServerConfig::default() }).await;
    let waits = calling("wait_forever", json!({"_meta": {"progressToken": 7}}));
    let response = served.post(&[], &waits).await;
    served.registered.seen.until_begun(1).await;
    let refused = served.post(&[], &calling("echo", json!({}))).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert!(timeout(PATIENCE, served.endpoint.close(Duration::from_secs(5))).await.unwrap());
    served.registered.seen.until_cancelled(1).await;
    let told = events(&timeout(PATIENCE, response.text()).await.unwrap().unwrap());
    assert!(told.iter().all(|event| event.get("id").is_none()), "no answer: {told:?}");
    assert_eq!(served.status(&[], &request("ping", json!({}))).await, 503);
}
