//! Streamable HTTP as it should be, in both eras.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http_server::{Piece, Received, Server, event, json as json_reply, reply, result, stream_head};
use crate::http_support::*;
use machina_core::{CallContext, Connector, Era, ErrorKind, HttpEndpoint, Notice, Phase, Sensitive};
use serde_json::{Map, Value, json};
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn the_stateless_era_repeats_itself_in_headers() {
    let server = answering(done).await;
    let session = connect(&server, None).await.unwrap();
    assert_eq!(session.protocol_version(), "2026-07-28");
    session.definitions().await.unwrap();
    let arguments = json!({"region": "grün"}).as_object().unwrap().clone();
    let context = within();
    let answer = session.call("echo", &arguments, &context).await.unwrap();
    assert_eq!(Value::Object(answer.0).to_string(), r#"{"content":[],"b":1,"a":2}"#);
    session.probe(Duration::from_secs(1)).await.unwrap();
    session.close().await;
    let request = &server.calls("tools/call")[0];
    assert_eq!(request.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(request.header("mcp-method"), Some("tools/call"));
    assert_eq!(request.header("mcp-name"), Some("echo"));
    assert_eq!(request.header("mcp-param-region"), Some("=?base64?Z3LDvG4=?="));
    assert_eq!(context.carried.sent(), request.body.to_string().len() as u64);
    let answered = json!({"jsonrpc": "2.0", "id": request.body["id"], "result": {"content": [], "b": 1, "a": 2}});
    assert_eq!(context.carried.received(), answered.to_string().len() as u64);
    assert_eq!(request.body["params"]["_meta"]["io.modelcontextprotocol/clientInfo"]["name"], "machina");
    assert_eq!(server.calls("server/discover").len(), 2, "one to connect, one to probe");
    assert!(server.received().iter().all(|request| request.verb == "POST"), "no stream and no session to end");
}

#[tokio::test]
async fn a_header_mismatch_is_mended_once_from_the_list_of_tools() {
    let server = answering(|request| match request.header("mcp-param-region") {
        Some("eu") => done(request),
        _ => {
            let error = json!({"jsonrpc": "2.0", "id": request.body["id"], "error": {"code": -32020, "message": "x"}});
            reply(400, &[("content-type", "application/json")], &error.to_string())
        }
    })
    .await;
    let session = connect(&server, Some(Era::Modern)).await.unwrap();
    let arguments = json!({"region": "eu"}).as_object().unwrap().clone();
    session.call("echo", &arguments, &within()).await.unwrap();
    assert_eq!(server.calls("tools/call").len(), 2);
    let error = session.call("echo", &Map::new(), &within()).await.unwrap_err();
    assert_eq!(phase_of(&error), (ErrorKind::Rejected, Phase::Refused));
}

#[tokio::test]
async fn the_older_era_keeps_its_session_and_ends_it() {
    let server = legacy(done).await;
    let session = connect(&server, None).await.unwrap();
    assert_eq!(session.protocol_version(), "2025-11-25");
    assert_eq!(session.definitions().await.unwrap().tools[0].definition()["x-more"], 1);
    call(&session).await.unwrap();
    session.probe(Duration::from_secs(1)).await.unwrap();
    session.close().await;
    let request = &server.calls("tools/call")[0];
    assert_eq!(request.header("mcp-session-id"), Some("s-1"));
    assert_eq!(request.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(request.header("mcp-method"), None);
    assert!(request.body["params"].get("_meta").is_none());
    assert_eq!(server.calls("initialize")[0].header("mcp-session-id"), None);
    assert_eq!(server.calls("notifications/initialized").len(), 1);
    let verbs = server.received();
    let last = verbs.iter().find(|request| request.verb == "DELETE").expect("the session is ended");
    assert_eq!(last.header("mcp-session-id"), Some("s-1"));
    assert!(call(&session).await.is_err_and(|error| error.context().phase == Some(Phase::NotSent)));
}

#[tokio::test]
async fn the_known_era_is_asked_first_and_a_changed_one_found() {
    let server = answering(done).await;
    assert_eq!(connect(&server, Some(Era::Legacy)).await.unwrap().protocol_version(), "2025-11-25");
    assert!(server.calls("server/discover").is_empty());
    let server = legacy(done).await;
    assert_eq!(connect(&server, Some(Era::Modern)).await.unwrap().protocol_version(), "2025-11-25");
    let modern_only = Server::start(|request| match request.method() {
        "initialize" => reply(404, &[], ""),
        _ => polite(request).unwrap_or_else(|| done(request)),
    })
    .await;
    assert_eq!(connect(&modern_only, Some(Era::Legacy)).await.unwrap().protocol_version(), "2026-07-28");
    let silent = Server::start(|request| match request.method() {
        "server/discover" => vec![Piece::Pause(Duration::from_secs(30))],
        _ => polite(request).unwrap_or_else(|| done(request)),
    })
    .await;
    let (connector, endpoint) = (connector_that_waits(Duration::from_millis(500)), HttpEndpoint::new(&silent.url));
    assert_eq!(connector.connect(&target(endpoint, None)).await.unwrap().protocol_version(), "2025-11-25");
    let crashing = Server::start(|request| match request.method() {
        "server/discover" => reply(500, &[], "Traceback"),
        _ => polite(request).unwrap_or_else(|| done(request)),
    })
    .await;
    assert_eq!(connect(&crashing, None).await.unwrap().protocol_version(), "2025-11-25");
}

#[tokio::test]
async fn declared_headers_are_resolved_sent_and_never_shown() {
    let server = answering(done).await;
    let mut endpoint = HttpEndpoint::new(&server.url);
    endpoint.headers.insert("Authorization".into(), Sensitive::secret("Bearer ${env:TOKEN}"));
    let session = connector().connect(&target(endpoint.clone(), None)).await.unwrap();
    assert_eq!(server.received()[0].header("authorization"), Some("Bearer hunter2"));
    assert!(!format!("{session:?}").contains("hunter"));
    for (name, value, says) in [
        ("Mcp-Session-Id", "x", "set by the protocol"),
        ("X-Key", "${env:NOPE}", "NOPE"),
        ("X-Key", "hunter3\n", "control characters"),
    ] {
        let mut endpoint = endpoint.clone();
        endpoint.headers.insert(name.into(), Sensitive::secret(value));
        let error = connector().connect(&target(endpoint, None)).await.unwrap_err();
        assert_eq!(phase_of(&error), (ErrorKind::Invalid, Phase::NotSent));
        assert_eq!(error.context().problems[0].field, format!("headers.{name}"));
        assert!(error.message().contains(says) && !format!("{error:?}").contains("hunter"), "{error:?}");
    }
    let error = connector().connect(&target(HttpEndpoint::new("ftp://x/y"), None)).await.unwrap_err();
    assert_eq!(error.context().problems[0].field, "url");
}

#[tokio::test]
async fn a_stream_carries_progress_questions_and_the_answer() {
    let server = legacy(|request| {
        let token = &request.body["params"]["_meta"]["progressToken"];
        let progress = |n| {
            event(&json!({"jsonrpc": "2.0", "method": "notifications/progress",
            "params": {"progressToken": token, "progress": n}}))
        };
        vec![
            stream_head(),
            Piece::Bytes(b": hello\n\n".to_vec()),
            progress(1),
            event(&json!({"jsonrpc": "2.0", "id": 77, "method": "roots/list"})),
            progress(2),
            progress(1),
            event(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})),
            event(&json!({"jsonrpc": "2.0", "id": 9999, "result": {"not": "ours"}})),
            event(&result(request, json!({"content": []}))),
            Piece::Hangup,
        ]
    })
    .await;
    let session = connect(&server, None).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let mut context = within();
    context.progress = Some(Arc::new(move |progress| sink.lock().unwrap().push(progress.progress)));
    session.call("echo", &Map::new(), &context).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [1.0, 2.0], "only what grows is passed on");
    let notice = timeout(Duration::from_secs(1), session.notice()).await.unwrap();
    assert!(matches!(notice, Notice::DefinitionsChanged));
    for _ in 0..500 {
        if server.received().iter().any(|request| request.body["id"] == 77) {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let replies: Vec<_> = server.received().into_iter().filter(|request| request.body["id"] == 77).collect();
    assert_eq!(replies[0].body["result"], json!({"roots": []}));
    session.close().await;
}

#[tokio::test]
async fn a_log_on_the_stream_of_a_call_reaches_its_caller_and_no_other() {
    let server = Server::start(|request| match request.method() {
        "initialize" => json_reply(&result(
            request,
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "logging": {}}}),
        )),
        "logging/setLevel" => json_reply(&result(request, json!({}))),
        "tools/call" => {
            let line = |level: &str| {
                event(&json!({"jsonrpc": "2.0", "method": "notifications/message",
                    "params": {"level": level, "logger": "io", "data": {"z": 1, "a": 2}}}))
            };
            let answer = event(&result(request, json!({"content": []})));
            vec![stream_head(), line("debug"), line("error"), answer, Piece::Hangup]
        }
        _ => polite(request).unwrap(),
    })
    .await;
    let session = connect(&server, Some(Era::Legacy)).await.unwrap();
    call(&session).await.unwrap();
    assert!(server.calls("logging/setLevel").is_empty(), "nobody wants to hear of it");
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let mut context = within();
    context.log = Some(Arc::new(move |params| sink.lock().unwrap().push(params.to_string())));
    let none = Map::new();
    for _ in 0..2 {
        let (wanting, other) = tokio::join!(session.call("echo", &none, &context), call(&session));
        assert!(wanting.is_ok() && other.is_ok());
    }
    let line = |level: &str| format!(r#"{{"level":"{level}","logger":"io","data":{{"z":1,"a":2}}}}"#);
    assert_eq!(*told.lock().unwrap(), ["debug", "error", "debug", "error"].map(line));
    let asked = server.calls("logging/setLevel");
    assert_eq!((asked.len(), &asked[0].body["params"]), (1, &json!({"level": "debug"})));
}

#[tokio::test]
async fn a_server_that_never_accepts_a_level_holds_no_call_up_beyond_its_time() {
    let server = Server::start(|request| match request.method() {
        "initialize" => json_reply(&result(
            request,
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "logging": {}}}),
        )),
        "logging/setLevel" => vec![Piece::Pause(Duration::from_secs(30))],
        "tools/call" => done(request),
        _ => polite(request).unwrap(),
    })
    .await;
    let session = connect(&server, Some(Era::Legacy)).await.unwrap();
    let mut context = CallContext::within(Duration::from_millis(300));
    context.log = Some(Arc::new(|_| {}));
    let begun = tokio::time::Instant::now();
    let error = session.call("echo", &Map::new(), &context).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3), "{error}");
    assert_eq!(call(&session).await.unwrap()["b"], 1, "who wants no log is not held up at all");
}

#[tokio::test]
async fn a_missing_capability_is_told_with_what_the_server_adds() {
    let server = answering(|request| {
        let error = json!({"code": -32021, "message": "no", "data": {"requiredCapabilities": {"sampling": {}}}});
        let body = json!({"jsonrpc": "2.0", "id": request.body["id"], "error": error});
        reply(400, &[("content-type", "application/json")], &body.to_string())
    })
    .await;
    let session = connect(&server, None).await.unwrap();
    let error = call(&session).await.unwrap_err();
    assert_eq!(phase_of(&error), (ErrorKind::Rejected, Phase::Refused));
    assert_eq!(error.context().upstream_data, Some(json!({"requiredCapabilities": {"sampling": {}}})));
}

#[tokio::test]
async fn a_server_that_speaks_another_version_meanwhile_ends_the_session() {
    let server = answering(|request| {
        let error = json!({"code": -32022, "message": "no", "data": {"supported": ["2027-01-01"]}});
        let body = json!({"jsonrpc": "2.0", "id": request.body["id"], "error": error});
        reply(400, &[("content-type", "application/json")], &body.to_string())
    })
    .await;
    let session = connect(&server, None).await.unwrap();
    assert!(!session.is_closed());
    let error = call(&session).await.unwrap_err();
    assert_eq!(phase_of(&error), (ErrorKind::Rejected, Phase::Refused));
    assert!(session.is_closed(), "so the call may have another try on a new one");
}

#[tokio::test]
async fn a_stream_that_names_its_position_is_taken_up_again() {
    let waiting = Arc::new(Mutex::new(None));
    let server = Server::start(move |request| match (request.verb.as_str(), request.method()) {
        ("GET", _) if request.header("last-event-id") == Some("e-1") => {
            let asked: Received = waiting.lock().unwrap().clone().unwrap();
            vec![stream_head(), event(&result(&asked, json!({"content": [], "resumed": true}))), Piece::Hangup]
        }
        (_, "tools/call") => {
            *waiting.lock().unwrap() = Some(request.clone());
            vec![stream_head(), Piece::Bytes(b"id: e-1\nretry: 10\ndata:\n\n".to_vec()), Piece::Hangup]
        }
        _ => polite(request).unwrap(),
    })
    .await;
    let session = connect(&server, Some(Era::Legacy)).await.unwrap();
    assert_eq!(call(&session).await.unwrap()["resumed"], true);
    assert_eq!(server.calls("tools/call").len(), 1);
}

#[tokio::test]
async fn changes_are_followed_on_the_listening_stream_and_by_subscription() {
    let change = |list: &str| event(&json!({"jsonrpc": "2.0", "method": format!("notifications/{list}/list_changed")}));
    let listening = move |request: &Received, list: &str| match (request.verb.as_str(), request.method()) {
        ("GET", _) | (_, "subscriptions/listen") => {
            vec![
                stream_head(),
                Piece::Pause(Duration::from_millis(100)),
                change(list),
                Piece::Pause(Duration::from_secs(30)),
            ]
        }
        (_, "server/discover") => json_reply(&result(
            request,
            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}, "prompts": {"listChanged": true},
                "resources": {"listChanged": true}}}),
        )),
        _ => polite(request).unwrap(),
    };
    for (era, list) in [(Era::Legacy, "tools"), (Era::Legacy, "prompts"), (Era::Modern, "resources")] {
        let server = Server::start(move |request| listening(request, list)).await;
        let session = connect(&server, Some(era)).await.unwrap();
        let notice = timeout(Duration::from_secs(2), session.notice()).await.expect("a notice");
        assert!(matches!(notice, Notice::DefinitionsChanged));
        if era == Era::Modern {
            let filter = &server.calls("subscriptions/listen")[0].body["params"]["notifications"];
            assert_eq!(filter, &json!({"promptsListChanged": true, "resourcesListChanged": true}));
        }
        session.close().await;
    }
}

#[tokio::test]
async fn a_server_with_nothing_to_say_is_not_pestered() {
    for (body, most) in [("<html>hello</html>", 1), ("data: x\n\n", 4)] {
        let kind = if body.starts_with('<') { "text/html" } else { "text/event-stream" };
        let server = Server::start(move |request| match request.verb.as_str() {
            "GET" => reply(200, &[("content-type", kind)], body),
            _ => polite(request).unwrap(),
        })
        .await;
        let session = connect(&server, Some(Era::Legacy)).await.unwrap();
        sleep(Duration::from_millis(1_500)).await;
        let asked = server.received().iter().filter(|request| request.verb == "GET").count();
        assert!((1..=most).contains(&asked), "{kind}: asked {asked} times");
        session.close().await;
    }
}
