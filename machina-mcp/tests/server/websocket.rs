//! Machina as an MCP server over WebSockets, in front of a client that no one
//! here wrote and that sees every frame, and of rmcp on top of it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use machina_mcp::server::{HttpServerConfig, ToolMode};
use rmcp::RoleClient;
use rmcp::service::{ClientServiceExt, RxJsonRpcMessage, TxJsonRpcMessage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::host::{Host, call, legacy, meta, modern};
use crate::served::{Served, calling, request, serve};
use crate::upstream::PATIENCE;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A host on a WebSocket that sends and reads messages.
struct Bare(Socket);

impl Bare {
    async fn open(served: &Served) -> Self {
        Self(connect(served, "/mcp/ws", &[]).await.unwrap().0)
    }

    async fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn frame(&mut self) -> Option<Result<Message, Error>> {
        timeout(PATIENCE, self.0.next()).await.expect("the server says something")
    }

    /// The next message.
    async fn next(&mut self) -> Value {
        loop {
            match self.frame().await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ask(&mut self, message: &Value) -> Value {
        self.send(message).await;
        self.next().await
    }

    /// The code with which the server ends the connection; `None` without one.
    async fn end(&mut self) -> Option<CloseCode> {
        let mut code = None;
        while let Some(Ok(frame)) = self.frame().await {
            if let Message::Close(Some(frame)) = frame {
                code = Some(frame.code);
            }
        }
        code
    }

    /// The same for a host that hangs up as soon as it knows.
    async fn hang_up(mut self) -> Option<CloseCode> {
        loop {
            if let Message::Close(frame) = self.frame().await?.unwrap() {
                return frame.map(|frame| frame.code);
            }
        }
    }
}

type Handshake = http::Response<Option<Vec<u8>>>;

async fn connect(served: &Served, path: &str, headers: &[(&'static str, &str)]) -> Result<(Socket, Handshake), Error> {
    let mut request = format!("ws://{}{path}", served.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    timeout(PATIENCE, connect_async(request)).await.expect("the server answers")
}

async fn status(served: &Served, path: &str, headers: &[(&'static str, &str)]) -> u16 {
    match connect(served, path, headers).await {
        Ok((_, response)) => response.status().as_u16(),
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
    }
}

fn waiting(id: u32) -> Value {
    let mut call = calling("wait_forever", json!({"_meta": meta()}));
    call["id"] = json!(id);
    call
}

fn short(keep_alive: u64) -> HttpServerConfig {
    HttpServerConfig { keep_alive: Duration::from_millis(keep_alive), ..HttpServerConfig::default() }
}

#[tokio::test]
async fn rmcp_speaks_both_eras_over_a_web_socket() {
    let served = serve(HttpServerConfig { mode: ToolMode::Flat, ..HttpServerConfig::default() }).await;
    for mode in [legacy(), modern()] {
        let (sink, stream) = connect(&served, "/mcp/ws", &[]).await.unwrap().0.split();
        let sink = sink.with(async |message: TxJsonRpcMessage<RoleClient>| {
            Ok::<_, Error>(Message::text(serde_json::to_string(&message).unwrap()))
        });
        let stream = stream.filter_map(async |frame| match frame {
            Ok(Message::Text(text)) => Some(serde_json::from_str::<RxJsonRpcMessage<RoleClient>>(&text).unwrap()),
            _ => None,
        });
        let transport = (Box::pin(sink), Box::pin(stream));
        let client = timeout(PATIENCE, Host::default().serve_with_lifecycle(transport, mode)).await.unwrap().unwrap();
        assert_eq!(client.list_all_tools().await.unwrap().len(), 6);
        let result = call(&client, "fixture__echo", json!({"text": "hi"})).await;
        assert_eq!(result["content"][0]["text"], "hi");
        client.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn a_host_of_the_older_era_is_told_of_changes_and_one_of_the_stateless_subscribes() {
    let served = serve(HttpServerConfig { mode: ToolMode::Flat, ..HttpServerConfig::default() }).await;
    let (mut old, mut new) = (Bare::open(&served).await, Bare::open(&served).await);
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bare"}});
    let hello = old.ask(&request("initialize", params)).await;
    assert_eq!(hello["result"]["capabilities"]["tools"], json!({"listChanged": true}));
    let listen = request("subscriptions/listen", json!({"_meta": meta(), "notifications": {"toolsListChanged": true}}));
    assert_eq!(new.ask(&listen).await["method"], "notifications/subscriptions/acknowledged");
    served.register("late").await;
    for bare in [&mut old, &mut new] {
        while bare.next().await["method"] != "notifications/tools/list_changed" {}
    }
}

#[tokio::test]
async fn the_handshake_is_as_the_rfc_wants_it_and_the_protocol_is_agreed_on() {
    let served = serve(HttpServerConfig::default()).await;
    let (_, response) = connect(&served, "/mcp/ws", &[("sec-websocket-protocol", "other, mcp")]).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "mcp");
    let (_, response) = connect(&served, "/mcp/ws", &[]).await.unwrap();
    assert_eq!(response.headers().get("sec-websocket-protocol"), None);
    for (path, headers, want) in [
        ("/mcp/ws", vec![("host", "evil.example")], 403),
        ("/mcp/ws", vec![("origin", "https://evil.example")], 403),
        ("/mcp/ws", vec![("x-user", "nobody")], 401),
        ("/mcp/ws", vec![("sec-websocket-version", "12")], 426),
        ("/mcp/ws", vec![("origin", &*format!("http://{}", served.address))], 101),
        ("/mcp/none/ws", vec![], 404),
    ] {
        assert_eq!(status(&served, path, &headers).await, want, "{path} {headers:?}");
    }
    let plain = reqwest::get(format!("http://{}/mcp/ws", served.address)).await.unwrap();
    assert_eq!((plain.status().as_u16(), &plain.headers()["upgrade"]), (426, &"websocket".parse().unwrap()));
    assert_eq!(plain.headers()["sec-websocket-version"], "13");
    let post = reqwest::Client::new().post(format!("http://{}/mcp/ws", served.address)).send().await.unwrap();
    assert_eq!((post.status().as_u16(), &post.headers()["allow"]), (405, &"GET".parse().unwrap()));
}

#[tokio::test]
async fn what_is_no_message_is_a_fault_and_the_conversation_goes_on() {
    let served = serve(HttpServerConfig::default()).await;
    let mut bare = Bare::open(&served).await;
    for (text, code) in [
        ("{", -32700),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"ping"}"#, -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, -32602),
    ] {
        bare.0.send(Message::text(text)).await.unwrap();
        assert_eq!(bare.next().await["error"]["code"], code, "{text}");
    }
    bare.0.send(Message::Ping("sign".into())).await.unwrap();
    assert_eq!(bare.frame().await.unwrap().unwrap(), Message::Pong("sign".into()));
    assert_eq!(bare.ask(&request("ping", json!({}))).await["result"], json!({}));
    bare.0.close(None).await.unwrap();
    assert_eq!(bare.end().await, None);
}

#[tokio::test]
async fn calls_run_side_by_side_and_are_cancelled_by_id_and_when_the_host_goes() {
    let served = serve(HttpServerConfig::default()).await;
    let mut bare = Bare::open(&served).await;
    bare.send(&waiting(7)).await;
    bare.send(&waiting(8)).await;
    served.registered.seen.until_begun(2).await;
    assert_eq!(bare.ask(&request("tools/list", json!({"_meta": meta()}))).await["id"], 1);
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    bare.send(&cancel).await;
    served.registered.seen.until_cancelled(1).await;
    drop(bare);
    served.registered.seen.until_cancelled(2).await;
}

#[tokio::test]
async fn a_message_that_is_too_long_or_of_the_wrong_kind_ends_the_connection_with_its_code() {
    let served = serve(HttpServerConfig { message_bytes_max: 10_000, ..HttpServerConfig::default() }).await;
    let fragment =
        |last| Frame::message(vec![b'a'; 6_000], OpCode::Data(if last { Data::Continue } else { Data::Text }), last);
    for (frames, code) in [
        (vec![Message::text("x".repeat(10_001))], CloseCode::Size),
        (vec![Message::Frame(fragment(false)), Message::Frame(fragment(true))], CloseCode::Size),
        (vec![Message::binary("{}")], CloseCode::Unsupported),
        (vec![Message::Frame(Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true))], CloseCode::Invalid),
        (vec![Message::Frame(Frame::message("x", OpCode::Data(Data::Continue), true))], CloseCode::Protocol),
    ] {
        let mut bare = Bare::open(&served).await;
        for frame in frames {
            bare.0.send(frame).await.unwrap();
        }
        assert_eq!(bare.end().await, Some(code));
    }
}

#[tokio::test]
async fn a_half_sent_frame_and_a_host_that_says_nothing_are_given_up() {
    let served = serve(HttpServerConfig { message_timeout: Duration::from_secs(1), ..short(500) }).await;
    let mut silent = Bare::open(&served).await;
    assert_eq!(silent.end().await, Some(CloseCode::Policy));
    let mut half = Bare::open(&served).await;
    half.ask(&request("ping", json!({}))).await;
    let MaybeTlsStream::Plain(raw) = half.0.get_mut() else { panic!("no TLS here") };
    // A masked text frame of 100 bytes, of which two come.
    raw.write_all(&[0x81, 0x80 | 100, 0, 0, 0, 0, b'{', b'"']).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, raw.read_to_end(&mut rest)).await.expect("the server hangs up").unwrap();
    // The pings of the server, and the close frame with the code 1008.
    assert!(rest.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == 1008_u16.to_be_bytes()), "{rest:?}");
}

#[tokio::test]
async fn a_host_that_answers_pings_may_be_silent() {
    let served = serve(short(500)).await;
    let mut bare = Bare::open(&served).await;
    bare.ask(&request("ping", json!({}))).await;
    let mut pings = 0;
    // One that gives no sign of life is given up after the third.
    while pings < 5 {
        pings += u32::from(matches!(bare.frame().await.unwrap().unwrap(), Message::Ping(_)));
    }
    assert_eq!(bare.ask(&request("ping", json!({}))).await["result"], json!({}));
}

#[tokio::test]
async fn a_host_that_does_not_read_loses_its_connection_and_its_calls() {
    let served = serve(short(200)).await;
    let mut bare = Bare::open(&served).await;
    bare.send(&waiting(7)).await;
    served.registered.seen.until_begun(1).await;
    // Each answer is large; none is read.
    let big = json!({"jsonrpc": "2.0", "id": "x".repeat(1_000_000), "method": "ping"}).to_string();
    let flood = async { while bare.0.send(Message::text(big.clone())).await.is_ok() {} };
    let gone = served.registered.seen.until_cancelled(1);
    tokio::select! {
        () = flood => {}
        () = gone => {}
    }
    served.registered.seen.until_cancelled(1).await;
}

#[tokio::test]
async fn sockets_are_bounded_and_give_their_place_back() {
    let served = serve(HttpServerConfig { sockets_max: 1, ..HttpServerConfig::default() }).await;
    let first = Bare::open(&served).await;
    assert_eq!(status(&served, "/mcp/ws", &[]).await, 503);
    drop(first);
    let again = async {
        while status(&served, "/mcp/ws", &[]).await != 101 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the place is free again");
}

#[tokio::test]
async fn a_drain_answers_what_runs_says_goodbye_and_leaves_nothing() {
    let served = serve(HttpServerConfig::default()).await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let (mut idle, mut busy) = (Bare::open(&served).await, Bare::open(&served).await);
    let listen = request("subscriptions/listen", json!({"_meta": meta(), "notifications": {}}));
    idle.ask(&listen).await;
    busy.send(&waiting(7)).await;
    served.registered.seen.until_begun(1).await;
    let endpoint = served.endpoint.clone();
    let draining = endpoint.drain(Duration::from_secs(3));
    let ends = async {
        assert_eq!(idle.next().await["result"]["resultType"], "complete", "the subscription is ended in order");
        assert_eq!(idle.end().await, Some(CloseCode::Restart));
        assert_eq!(status(&served, "/mcp/ws", &[]).await, 503);
        // The call never ends by itself.
        assert_eq!(busy.hang_up().await, Some(CloseCode::Restart));
    };
    let (drained, ()) = tokio::join!(draining, ends);
    assert!(drained);
    served.registered.seen.until_cancelled(1).await;
    drop(idle);
    let none = async {
        while alive() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, none).await.unwrap_or_else(|_| panic!("{} tasks are left of {before}", alive()));
}
