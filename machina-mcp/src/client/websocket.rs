//! A WebSocket to a server: one text frame is one message. The handshake is an
//! HTTP request like every other of this crate, without redirects and proxies.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{StatusCode, Version};
use machina_core::{Era, Error, Phase, Result};
use reqwest::{Client, Response, Upgraded};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use url::Url;

use super::conversation::Frame;
use super::duplex::Duplex;
use super::http_link::not_received;
use super::link::{shortened, unanswered};
use super::secrets::Secrets;
use super::status::{Refusal, retry_after};

/// What a server says that is about to be gone, and not only this connection.
const LEAVING: [CloseCode; 2] = [CloseCode::Away, CloseCode::Restart];

/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) type Socket = WebSocketStream<Upgraded>;

/// Opens a WebSocket at `url`, which begins with `http` or `https`, for messages
/// of at most `most` bytes.
pub(super) async fn open(client: &Client, url: &Url, secrets: &Secrets, most: usize) -> Result<Socket> {
    let key = generate_key();
    let request = client
        .get(url.clone())
        .version(Version::HTTP_11)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, "mcp");
    let response = request.send().await.map_err(|error| not_received(url, error.into()))?;
    check(&response, &key, secrets)?;
    let upgraded = response.upgrade().await.map_err(|error| not_received(url, error.into()))?;
    let limits = WebSocketConfig::default().max_message_size(Some(most)).max_frame_size(Some(most));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(limits)).await)
}

fn check(response: &Response, key: &str, secrets: &Secrets) -> Result<()> {
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let retry_after = retry_after(response.headers(), machina_core::now());
        let (method, kind, body) = ("the handshake of the WebSocket", "", &[][..]);
        let (in_session, era) = (false, Era::Legacy);
        return Err(Refusal { method, status, retry_after, kind, body, in_session, era, secrets }.error());
    }
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    if accept.is_some_and(|accept| accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes()) {
        return Ok(());
    }
    Err(Error::rejected("the server answered the handshake of another WebSocket").at(Phase::Answered))
}

/// Carries messages both ways until the link or the server ends it.
pub(super) async fn carry(socket: Socket, line: Arc<Duplex>, mut frames: mpsc::Receiver<Frame>) {
    let (mut sink, mut stream) = socket.split();
    let reason = tokio::select! {
        reason = hear(&mut stream, &line) => reason,
        reason = send(&mut sink, &mut frames) => reason,
        () = line.ending.cancelled() => {
            let _ = timeout(FAREWELL, sink.send(Message::Close(None))).await;
            Error::unavailable("the session was closed")
        }
    };
    line.end(reason);
}

async fn hear(stream: &mut SplitStream<Socket>, line: &Duplex) -> Error {
    loop {
        match stream.next().await {
            Some(Ok(Message::Text(text))) => line.hear(text.as_bytes()),
            Some(Ok(Message::Close(frame))) => {
                let leaves = frame.as_ref().is_some_and(|frame| LEAVING.contains(&frame.code));
                let why = frame.map(|frame| format!(": {} {}", u16::from(frame.code), shortened(&frame.reason)));
                let message = format!("the server closed the WebSocket{}", why.unwrap_or_default());
                return unanswered(message, Phase::MaybeExecuted).with(|context| context.hard = leaves);
            }
            // A ping is answered by the frames themselves.
            Some(Ok(_)) => {}
            Some(Err(error)) => return broken(&error),
            None => return unanswered("the WebSocket ended", Phase::MaybeExecuted),
        }
    }
}

async fn send(sink: &mut SplitSink<Socket, Message>, frames: &mut mpsc::Receiver<Frame>) -> Error {
    while let Some(frame) = frames.recv().await {
        if !frame.begin() {
            continue;
        }
        let text = String::from_utf8_lossy(&frame.bytes).into_owned();
        if let Err(error) = sink.send(Message::text(text)).await {
            return broken(&error);
        }
    }
    Error::unavailable("the session was closed")
}

fn broken(error: &tungstenite::Error) -> Error {
    let what = match error {
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            format!("a message of the server has more than {max_size} bytes")
        }
        other => format!("the WebSocket broke: {}", shortened(&other.to_string())),
    };
    unanswered(what, Phase::MaybeExecuted)
}
