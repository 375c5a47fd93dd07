//! Streamable HTTP when something goes wrong: each failure has its phase.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::http_server::{Piece, Received, Server, event, json as json_reply, reply, result, stream_head};
use crate::http_support::*;
use crate::ports;
use machina_core::{
    CallContext, Connector, Era, Error, ErrorKind, HttpEndpoint, Notice, Outcome, Phase, Sensitive, Session,
};
use machina_mcp::client::{Environment, HttpConfig, HttpConnector};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn refusals_of_a_call_are_told_apart() {
    for (status, headers, kind, phase) in [
        (401, &[][..], ErrorKind::Rejected, Phase::Refused),
        (403, &[], ErrorKind::Rejected, Phase::Refused),
        (429, &[("retry-after", "7")], ErrorKind::Overloaded, Phase::Refused),
        (503, &[("retry-after", "7")], ErrorKind::Overloaded, Phase::Refused),
        (503, &[], ErrorKind::Lost, Phase::MaybeExecuted),
        (502, &[], ErrorKind::Lost, Phase::MaybeExecuted),
        (307, &[("location", "http://127.0.0.1:1/")], ErrorKind::Rejected, Phase::MaybeExecuted),
        (404, &[], ErrorKind::Rejected, Phase::MaybeExecuted),
        (408, &[], ErrorKind::Lost, Phase::MaybeExecuted),
        (409, &[], ErrorKind::Rejected, Phase::MaybeExecuted),
        (499, &[], ErrorKind::Lost, Phase::MaybeExecuted),
        (415, &[], ErrorKind::Rejected, Phase::Refused),
        (202, &[], ErrorKind::Rejected, Phase::MaybeExecuted),
    ] {
        let server = answering(move |_| reply(status, headers, "")).await;
        let session = connect(&server, Some(Era::Modern)).await.unwrap();
        let error = call(&session).await.unwrap_err();
        assert_eq!(phase_of(&error), (kind, phase), "{status}");
        assert_eq!(error.context().retry_after_ms, (kind == ErrorKind::Overloaded).then_some(7_000));
        assert_eq!(server.calls("tools/call").len(), 1, "{status}: nothing is repeated");
    }
}

#[tokio::test]
async fn a_server_that_wants_credentials_says_so_when_connecting() {
    for status in [401, 403] {
        let server = Server::start(move |_| reply(status, &[("www-authenticate", "Bearer")], "")).await;
        let error = connect(&server, None).await.unwrap_err();
        assert_eq!(phase_of(&error), (ErrorKind::Rejected, Phase::NotSent));
        assert_eq!(error.context().upstream_status, Some(status));
        assert_eq!(server.received().len(), 1, "the handshake would meet the same");
    }
}

#[tokio::test]
async fn a_session_that_the_server_forgot_is_over() {
    for (status, body) in
        [(404, ""), (400, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID"}}"#)]
    {
        let server = legacy(move |_| reply(status, &[("content-type", "application/json")], body)).await;
        let session = connect(&server, None).await.unwrap();
        let error = call(&session).await.unwrap_err();
        assert_eq!(phase_of(&error), (ErrorKind::Unreachable, Phase::Refused));
        assert_eq!(error.context().outcome, Some(Outcome::NotExecuted));
        assert!(session.is_closed());
        let notice = timeout(Duration::from_secs(1), session.notice()).await.unwrap();
        assert!(matches!(notice, Notice::Closed(reason) if reason.context().upstream_status == Some(status)));
    }
}

#[tokio::test]
async fn what_cannot_be_reached_was_not_sent() {
    let (_port, address) = ports::closed().await;
    for url in [format!("http://{address}/"), "http://no-such-host.invalid/".into(), format!("https://{address}/")] {
        let error = connector().connect(&target(HttpEndpoint::new(&url), None)).await.unwrap_err();
        assert_eq!(phase_of(&error), (ErrorKind::Unreachable, Phase::NotSent), "{error}");
    }
    let server = answering(done).await;
    let tls = server.url.replace("http:", "https:");
    let error = connector().connect(&target(HttpEndpoint::new(&tls), None)).await.unwrap_err();
    assert_eq!(phase_of(&error), (ErrorKind::Unreachable, Phase::NotSent), "TLS against plain HTTP: {error}");

    let session = connect(&server, None).await.unwrap();
    let _port = server.end().await;
    sleep(Duration::from_millis(50)).await;
    let error = call(&session).await.unwrap_err();
    assert_eq!(phase_of(&error), (ErrorKind::Unreachable, Phase::NotSent), "{error}");
}

#[tokio::test]
async fn a_broken_stream_is_lost_and_committed_once_progress_was_passed_on() {
    let server = answering(|request| {
        let token = &request.body["params"]["_meta"]["progressToken"];
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress",
            "params": {"progressToken": token, "progress": 1}});
        vec![stream_head(), event(&progress), Piece::Hangup]
    })
    .await;
    let session = connect(&server, None).await.unwrap();
    assert_eq!(phase_of(&call(&session).await.unwrap_err()), (ErrorKind::Lost, Phase::MaybeExecuted));
    let mut context = within();
    context.progress = Some(Arc::new(|_| {}));
    let error = session.call("echo", &Map::new(), &context).await.unwrap_err();
    assert_eq!(phase_of(&error), (ErrorKind::Lost, Phase::Committed));
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_an_unknown_outcome_and_never_repeated() {
    let body = r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}"#;
    let plain =
        format!("HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len() - 1);
    let stream =
        format!("HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {body}\n\n");
    for whole in [plain, stream] {
        // Ids of one digit: two per session, the first of which is the question for the era.
        let whole = whole.replace("ID", "2");
        let cut = Arc::new(AtomicUsize::new(0));
        let (bytes, at) = (whole.clone().into_bytes(), cut.clone());
        let server =
            answering(move |_| vec![Piece::Bytes(bytes[..at.load(Ordering::SeqCst)].to_vec()), Piece::Hangup]).await;
        let connector = connector();
        for length in 0..=whole.len() {
            cut.store(length, Ordering::SeqCst);
            let endpoint = HttpEndpoint::new(&server.url);
            let session = connector.connect(&target(endpoint, Some(Era::Modern))).await.unwrap();
            let answer = call(&session).await;
            if length == whole.len() {
                assert_eq!(answer.unwrap(), json!({"content": []}));
            } else {
                let error = answer.expect_err("cut");
                assert_eq!(phase_of(&error), (ErrorKind::Lost, Phase::MaybeExecuted), "{length}: {error}");
            }
        }
        assert_eq!(server.calls("tools/call").len(), whole.len() + 1, "each call arrived exactly once");
    }
}

#[tokio::test]
async fn whoever_stops_waiting_cancels_upstream() {
    let slow = |_: &Received| vec![Piece::Pause(Duration::from_secs(30))];
    let server = legacy(slow).await;
    let session = connect(&server, None).await.unwrap();
    let error = session.call("echo", &Map::new(), &CallContext::within(Duration::from_millis(100))).await.unwrap_err();
    assert_eq!(phase_of(&error), (ErrorKind::Timeout, Phase::MaybeExecuted));
    assert!(timeout(Duration::from_millis(100), call(&session)).await.is_err());
    let context = within();
    let cancelled = context.cancelled.clone();
    let arguments = Map::new();
    let (answer, ()) = tokio::join!(session.call("echo", &arguments, &context), async {
        sleep(Duration::from_millis(50)).await;
        cancelled.cancel();
    });
    assert_eq!(phase_of(&answer.unwrap_err()), (ErrorKind::Lost, Phase::MaybeExecuted));
    server.until_calls("notifications/cancelled", 3).await;
    let ids = |method: &str, at: &str| -> Vec<Value> {
        server.calls(method).iter().map(|request| request.body.pointer(at).unwrap().clone()).collect()
    };
    assert_eq!(ids("notifications/cancelled", "/params/requestId"), ids("tools/call", "/id"));

    let server = answering(slow).await;
    let session = connect(&server, Some(Era::Modern)).await.unwrap();
    assert!(timeout(Duration::from_millis(100), call(&session)).await.is_err());
    sleep(Duration::from_millis(100)).await;
    assert!(server.calls("notifications/cancelled").is_empty(), "the closed stream says it");
}

#[tokio::test]
async fn a_server_that_vanishes_is_noticed_within_a_second_where_it_is_listened_to() {
    for era in [Era::Legacy, Era::Modern] {
        let server = Server::start(|request| match (request.verb.as_str(), request.method()) {
            ("GET", _) | (_, "subscriptions/listen") => vec![stream_head(), Piece::Pause(Duration::from_secs(30))],
            (_, "server/discover") => json_reply(&result(
                request,
                json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": true}}}),
            )),
            _ => polite(request).unwrap(),
        })
        .await;
        let session = connect(&server, Some(era)).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        let _port = server.end().await;
        // Two refusals suffice, the second of which comes after 750 ms; a third would come after 1750 ms.
        let reason = timeout(Duration::from_millis(1_700), closed(&session)).await.expect("in time");
        assert!(reason.context().hard, "{era:?}");
    }
}

/// Why the session is over, once it is.
async fn closed(session: &Arc<dyn Session>) -> Error {
    loop {
        if let Notice::Closed(reason) = session.notice().await {
            return reason;
        }
    }
}

/// Why a session ends whose server no longer answers connections; `None` if it took so long to bring that about that
/// the session may have been connected again in between.
async fn end_at_a_mute_server() -> Option<Error> {
    let server = Server::start(|request| match request.verb.as_str() {
        "GET" => vec![stream_head(), Piece::Pause(Duration::from_secs(30))],
        _ => polite(request).unwrap(),
    })
    .await;
    let config = HttpConfig { connect_timeout: Duration::from_millis(300), ..HttpConfig::default() };
    let connector = HttpConnector::new(config, Environment::default()).unwrap();
    let endpoint = HttpEndpoint::new(&server.url);
    let session = connector.connect(&target(endpoint, Some(Era::Legacy))).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    // What listens there now accepts nothing, and its queue is full.
    let mute = server.end().await.listen(1).unwrap();
    let address = mute.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
        queue.push(connected.unwrap());
    }
    // The session connects again after 250 ms.
    if begun.elapsed() > Duration::from_millis(200) {
        return None;
    }
    Some(timeout(Duration::from_secs(5), closed(&session)).await.expect("in time"))
}

#[tokio::test]
async fn a_server_that_no_longer_answers_connections_is_left_without_being_declared_dead() {
    for _ in 0..5 {
        let Some(reason) = end_at_a_mute_server().await else { continue };
        assert_eq!((reason.kind(), reason.context().hard), (ErrorKind::Unreachable, false), "{reason}");
        return;
    }
    panic!("this machine is too slow to fill a queue");
}

#[tokio::test]
async fn a_silent_question_leaves_time_for_the_handshake_however_long_its_wait_is() {
    let silent = Server::start(|request| match request.method() {
        "server/discover" => vec![Piece::Pause(Duration::from_secs(30))],
        _ => polite(request).unwrap_or_else(|| done(request)),
    })
    .await;
    let config = HttpConfig { discover_timeout: Duration::from_secs(60), ..HttpConfig::default() };
    let connector = HttpConnector::new(config, Environment::default()).unwrap();
    let mut target = target(HttpEndpoint::new(&silent.url), None);
    target.timeout = Duration::from_secs(2);
    assert_eq!(connector.connect(&target).await.unwrap().protocol_version(), "2025-11-25");
}

#[tokio::test]
async fn looking_up_headers_keeps_to_the_limits_of_the_call() {
    let server = Server::start(|request| match request.method() {
        "tools/call" => {
            let error = json!({"jsonrpc": "2.0", "id": request.body["id"], "error": {"code": -32020, "message": "x"}});
            reply(400, &[("content-type", "application/json")], &error.to_string())
        }
        "tools/list" => vec![Piece::Pause(Duration::from_secs(30))],
        _ => polite(request).unwrap(),
    })
    .await;
    let session = connect(&server, Some(Era::Modern)).await.unwrap();
    let arguments = Map::new();
    let context = CallContext::within(Duration::from_secs(2));
    let late = timeout(Duration::from_secs(5), session.call("echo", &arguments, &context)).await.expect("in time");
    assert_eq!(phase_of(&late.unwrap_err()), (ErrorKind::Timeout, Phase::Refused));
    let context = within();
    let cancelled = context.cancelled.clone();
    let (stopped, ()) =
        tokio::join!(timeout(Duration::from_secs(5), session.call("echo", &arguments, &context)), async {
            server.until_calls("tools/list", 2).await;
            cancelled.cancel();
        });
    assert_eq!(phase_of(&stopped.expect("in time").unwrap_err()), (ErrorKind::Unreachable, Phase::Refused));
    assert_eq!(server.calls("tools/call").len(), 2);
}

#[tokio::test]
async fn what_a_server_repeats_of_our_secrets_is_masked() {
    let said = "Bearer hunter2 is wrong, so is hunter2, so is opensesame";
    for plain in [true, false] {
        let server = answering(move |request| {
            let error = json!({"jsonrpc": "2.0", "id": request.body["id"], "error": {"code": -32602, "message": said}});
            if plain { reply(400, &[], said) } else { json_reply(&error) }
        })
        .await;
        let mut endpoint = HttpEndpoint::new(format!("{}?api_key=opensesame", server.url));
        endpoint.headers.insert("Authorization".into(), Sensitive::secret("Bearer ${env:TOKEN}"));
        let session = connector().connect(&target(endpoint, None)).await.unwrap();
        let error = call(&session).await.unwrap_err();
        // Text that is none of the protocol is not quoted at all.
        let quoted = if plain { "no reason given" } else { "******** is wrong, so is ********, so is ********" };
        assert!(error.message().ends_with(quoted), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused() {
    for streamed in [false, true] {
        let server = answering(move |request| {
            let big = result(request, json!({"content": "x".repeat(200_000)}));
            if streamed { vec![stream_head(), event(&big), Piece::Hangup] } else { json_reply(&big) }
        })
        .await;
        let config = HttpConfig { message_bytes_max: 100_000, ..HttpConfig::default() };
        let connector = HttpConnector::new(config, Environment::default()).unwrap();
        let session = connector.connect(&target(HttpEndpoint::new(&server.url), None)).await.unwrap();
        assert_eq!(phase_of(&call(&session).await.unwrap_err()), (ErrorKind::Rejected, Phase::Answered));
    }
}

#[tokio::test]
async fn an_answer_that_readers_would_read_differently_is_refused_at_once() {
    let deep = format!(r#"{{"content":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    for (text, why) in [
        (r#"{"content":[],"isError":false,"isError":true}"#.to_owned(), "the key `isError` is there twice"),
        (r#"{"content":[{"type":"text","text":"a","\u0074ext":"b"}]}"#.to_owned(), "the key `text` is there twice"),
        (deep, "more than 64 deep"),
    ] {
        for streamed in [false, true] {
            let text = text.clone();
            let server = answering(move |request| {
                let message = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{text}}}"#, request.body["id"]);
                let event = Piece::Bytes(format!("data: {message}\n\n").into_bytes());
                match streamed {
                    true => vec![stream_head(), event, Piece::Pause(Duration::from_secs(4))],
                    false => reply(200, &[("content-type", "application/json")], &message),
                }
            })
            .await;
            let session = connect(&server, None).await.unwrap();
            let refused = timeout(Duration::from_secs(2), call(&session)).await.expect("at once").unwrap_err();
            assert_eq!(phase_of(&refused), (ErrorKind::Rejected, Phase::Answered));
            assert!(refused.message().contains("is refused") && refused.message().contains(why), "{refused}");
            assert_eq!(server.calls("tools/call").len(), 1, "it is not repeated");
        }
    }
}
