//! A client that does as little as possible: prepared bytes over kept-alive
//! connections. Both sides of a comparison are asked by it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Clock;

/// One kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Where to.
    pub address: SocketAddr,
    /// All of it, head and body.
    pub bytes: Vec<u8>,
}

impl Prepared {
    /// A request of `method` for `path`, with further headers and a body.
    #[must_use]
    pub fn new(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        Self { address, bytes: format!("{head}\r\n{body}").into_bytes() }
    }
}

impl Connection {
    /// Opens one.
    ///
    /// # Panics
    /// If nobody listens.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("sets TCP_NODELAY");
        Self { stream, buffer: vec![0; 1 << 22] }
    }

    /// Sends a request and reads its answer; returns the answer, head and body.
    ///
    /// # Panics
    /// If the connection breaks.
    pub async fn exchange(&mut self, request: &Prepared) -> &[u8] {
        self.stream.write_all(&request.bytes).await.expect("writes");
        let mut read = 0;
        loop {
            let count = self.stream.read(&mut self.buffer[read..]).await.expect("reads");
            assert!(count > 0, "the server closed the connection: {}", String::from_utf8_lossy(&self.buffer[..read]));
            read += count;
            if let Some(length) = length_of(&self.buffer[..read]).filter(|length| *length <= read) {
                return &self.buffer[..length];
            }
        }
    }
}

/// The length of an answer whose head is complete.
fn length_of(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).expect("a head is text");
    if text.starts_with("HTTP/1.1 304") || text.starts_with("HTTP/1.1 202") {
        return Some(head);
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().expect("a number"))
    });
    Some(head + length.unwrap_or_else(|| panic!("no content-length in {text}")))
}

/// How long each of `count` requests took, one after the other on one connection.
pub async fn latencies(request: &Prepared, count: usize) -> Vec<Duration> {
    let mut connection = Connection::open(request.address).await;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count / 10 {
        connection.exchange(request).await;
    }
    for _ in 0..count {
        let started = Clock::now();
        connection.exchange(request).await;
        times.push(started.elapsed());
    }
    times
}

/// How many requests a second are answered over `connections` connections.
pub async fn per_second(request: &Prepared, connections: usize, during: Duration) -> f64 {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(request.address).await);
    }
    let started = Clock::now();
    let asking = open.iter_mut().map(async |connection| {
        let mut count = 0_u64;
        while started.elapsed() < during {
            connection.exchange(request).await;
            count += 1;
        }
        count
    });
    let counts = futures_util::future::join_all(asking).await;
    counts.iter().sum::<u64>() as f64 / started.elapsed().as_secs_f64()
}
