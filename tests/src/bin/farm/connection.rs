//! One connection to one instance, request by request, and all that can be wrong
//! with it.

use std::io;
use std::time::Duration;

use machina_tests::farm::{Behaviour, Cut, End, Side};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::instance::Instance;
use crate::mcp::{Asked, Call};
use crate::wire::{self, Request, Response};

/// What a server that has gone mad says.
const GARBAGE: &[u8] = b"\x00\xff\x13\x37 this is no HTTP \r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}";
/// How much of an endless body is written at a time.
const FLOOD_PIECE: usize = 64 * 1024;

/// How the connection goes on.
enum Next {
    /// With the next request.
    Go,
    /// Not at all.
    End(End),
    /// In silence, until it is cut.
    Silence,
}

/// Serves until the connection ends; takes its time to die, never longer than the
/// instance lives.
pub(crate) async fn serve(instance: &Instance, mut stream: TcpStream) {
    let cut = instance.cut();
    let _ = stream.set_nodelay(true);
    let exchanges = async {
        let mut buffer = Vec::new();
        loop {
            match exchange(instance, &mut stream, &mut buffer).await {
                Ok(Next::Go) => {}
                Ok(Next::End(end)) => return end,
                Ok(Next::Silence) => std::future::pending().await,
                Err(_) => return End::Close,
            }
        }
    };
    let end = tokio::select! {
        biased;
        () = cut.cancelled() => End::Reset,
        end = exchanges => end,
    };
    if end == End::Reset {
        let _ = stream.set_zero_linger();
    }
}

async fn exchange(instance: &Instance, stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Next> {
    if instance.behaviour() == Behaviour::Hang {
        return Ok(Next::Silence);
    }
    let Some(request) = wire::read(stream, buffer).await? else { return Ok(Next::End(End::Close)) };
    match instance.behaviour() {
        Behaviour::Hang => return Ok(Next::Silence),
        Behaviour::Refuse => return Ok(Next::End(End::Reset)),
        Behaviour::Drop { after } if after < request.bytes => return Ok(Next::End(End::Reset)),
        Behaviour::Garbage => {
            stream.write_all(GARBAGE).await?;
            return Ok(Next::End(End::Close));
        }
        Behaviour::Wedged => return sent(stream, &Response::page(), None).await,
        Behaviour::Status { status, retry_after } => {
            let headers: Vec<_> = retry_after.map(|seconds| ("retry-after", seconds.to_string())).into_iter().collect();
            return sent(stream, &Response::empty(status, &headers), None).await;
        }
        Behaviour::Flood => return flood(stream).await,
        _ => {}
    }
    if request.method == "GET" && instance.speaker.announces && instance.speaker.eras.legacy {
        return match has_session(instance, &request) {
            true => sent(stream, &Response::stream(None), None).await,
            false => sent(stream, &Response::empty(404, &[]), None).await,
        };
    }
    match request.method.as_str() {
        "POST" => posted(instance, stream, &request).await,
        "DELETE" => sent(stream, &Response::empty(204, &[]), None).await,
        _ => sent(stream, &Response::empty(405, &[]), None).await,
    }
}

async fn posted(instance: &Instance, stream: &mut TcpStream, request: &Request) -> io::Result<Next> {
    let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
        let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "Parse error"}});
        return sent(stream, &Response::json(400, None, &error), None).await;
    };
    let asked = instance.speaker.asked(&message, &[]);
    let in_session = match &asked {
        Asked::Simple { in_session, .. } => *in_session,
        Asked::Call(call) => call.in_session,
        _ => false,
    };
    if in_session && !has_session(instance, request) {
        return sent(stream, &Response::empty(404, &[]), None).await;
    }
    let response = match asked {
        Asked::Nothing => Response::empty(202, &[]),
        Asked::Session(answer) => Response::json(200, Some(&instance.session()), &answer),
        Asked::Changes(first) => Response::stream(Some(&first)),
        Asked::Simple { answer, status, .. } => Response::json(status, None, &answer),
        Asked::Call(call) => return called(instance, stream, request, call).await,
    };
    answered(instance, stream, &response).await
}

fn has_session(instance: &Instance, request: &Request) -> bool {
    request.header("mcp-session-id") == Some(&instance.session())
}

/// Carries a call out, unless too little of it was taken; answers it, unless told otherwise.
async fn called(instance: &Instance, stream: &mut TcpStream, request: &Request, call: Call) -> io::Result<Next> {
    let _flying = instance.fly(call.class);
    let response = match instance.events {
        true => Response::event(&call.answer),
        false => Response::json(200, None, &call.answer),
    };
    let cut = call.cut.filter(|_| instance.ledger.first_cut(&call.id));
    match cut {
        Some(Cut { side: Side::Request, after, end }) if after < request.bytes => return Ok(Next::End(end)),
        Some(Cut { side: Side::Nothing | Side::Response, .. }) => {
            instance.ledger.measured(&call.id, response.sizes(request))
        }
        _ => {}
    }
    instance.ledger.execute(&call);
    tokio::time::sleep(call.takes).await;
    match cut {
        Some(Cut { side: Side::Request, end, .. }) => Ok(Next::End(end)),
        Some(Cut { side: Side::Response, after, end }) => sent(stream, &response, Some((after, end))).await,
        _ => answered(instance, stream, &response).await,
    }
}

/// Answers as the instance behaves at this moment, which may be another than when
/// the request came.
async fn answered(instance: &Instance, stream: &mut TcpStream, response: &Response) -> io::Result<Next> {
    match instance.behaviour() {
        Behaviour::Hang | Behaviour::Mute => Ok(Next::Silence),
        Behaviour::Reset { after } => sent(stream, response, Some((after, End::Reset))).await,
        Behaviour::Slow { ms } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            sent(stream, response, None).await
        }
        _ => sent(stream, response, None).await,
    }
}

/// Writes a response, up to where it is cut, if it is.
async fn sent(stream: &mut TcpStream, response: &Response, cut: Option<(usize, End)>) -> io::Result<Next> {
    let Some((after, end)) = cut else {
        stream.write_all(&response.bytes).await?;
        if !response.stays_open {
            return Ok(Next::Go);
        }
        // Nothing changes: the stream lasts until the client has enough of it.
        while stream.read(&mut [0; 64]).await? > 0 {}
        return Ok(Next::End(End::Close));
    };
    stream.write_all(&response.bytes[..after.min(response.bytes.len())]).await?;
    Ok(Next::End(end))
}

async fn flood(stream: &mut TcpStream) -> io::Result<Next> {
    let length = u64::from(u32::MAX);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n\"");
    stream.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; FLOOD_PIECE];
    loop {
        stream.write_all(&piece).await?;
    }
}
