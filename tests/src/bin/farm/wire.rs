//! HTTP/1.1 by hand, so that each byte of a response can be the last. Refuses to
//! be a web server: it reads what a client of MCP sends, and no more.

use std::io;

use machina_tests::farm::Sizes;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The most of a request that is read, in bytes.
const REQUEST_MAX: usize = 64 * 1024 * 1024;

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// How long it was, in bytes, its head included.
    pub(crate) bytes: usize,
}

impl Request {
    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The next request of a connection; `None` when the client has closed it.
/// `buffer` holds what was read ahead.
pub(crate) async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let (method, headers) = head(&buffer[..end])?;
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length = length.map_or(Ok(0), |(_, value)| value.parse::<usize>()).map_err(|_| malformed())?;
            let bytes = end + 4 + length;
            if bytes > REQUEST_MAX {
                return Err(malformed());
            }
            if buffer.len() >= bytes {
                let rest = buffer.split_off(bytes);
                let body = std::mem::replace(buffer, rest).split_off(end + 4);
                return Ok(Some(Request { method, headers, body, bytes }));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a request that the farm understands")
}

fn head(bytes: &[u8]) -> io::Result<(String, Vec<(String, String)>)> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
    let mut lines = text.split("\r\n");
    let method = lines.next().and_then(|line| line.split(' ').next()).ok_or_else(malformed)?.to_owned();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    });
    Ok((method, headers.collect::<io::Result<_>>()?))
}

/// A response, ready to be cut anywhere.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) bytes: Vec<u8>,
    /// Up to where it must have come for its answer to be known.
    answer: usize,
    /// Whether it is the beginning of a stream that stays open.
    pub(crate) stays_open: bool,
}

impl Response {
    /// One without a body.
    pub(crate) fn empty(status: u16, headers: &[(&str, String)]) -> Self {
        Self::with_body(status, headers, "")
    }

    fn with_body(status: u16, headers: &[(&str, String)], body: &str) -> Self {
        let mut text = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        Self { answer: text.len(), bytes: text.into_bytes(), stays_open: false }
    }

    /// A message as JSON.
    pub(crate) fn json(status: u16, session: Option<&str>, message: &Value) -> Self {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(session.map(|session| ("mcp-session-id", session.to_owned())));
        Self::with_body(status, &headers, &message.to_string())
    }

    /// A page of something that is no MCP server.
    pub(crate) fn page() -> Self {
        Self::with_body(200, &[("content-type", "text/html".to_owned())], "<html>It works!</html>")
    }

    /// A message as the only event of a stream.
    pub(crate) fn event(message: &Value) -> Self {
        let mut bytes = stream_head();
        bytes.extend(chunk(message));
        // The blank line that ends the event, and not the end of its chunk, makes it known.
        let answer = bytes.len() - 2;
        bytes.extend_from_slice(b"0\r\n\r\n");
        Self { bytes, answer, stays_open: false }
    }

    /// The beginning of a stream on which changes are announced, with its first event, if any.
    pub(crate) fn stream(first: Option<&Value>) -> Self {
        let mut bytes = stream_head();
        bytes.extend(first.map(chunk).into_iter().flatten());
        Self { answer: bytes.len(), bytes, stays_open: true }
    }

    /// The sizes of an exchange that began with `request`.
    pub(crate) fn sizes(&self, request: &Request) -> Sizes {
        Sizes { request: request.bytes, response: self.bytes.len(), answer: self.answer }
    }
}

fn stream_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()
}

fn chunk(message: &Value) -> Vec<u8> {
    let event = format!("event: message\ndata: {message}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        _ => "Whatever",
    }
}
