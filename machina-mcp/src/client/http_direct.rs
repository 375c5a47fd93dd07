//! Requests to plain `http` servers over connections of our own, driven by the
//! very task that waits for the answer: no other task takes part, so nothing has
//! to be woken. Refuses TLS, redirects, proxies and upgrades: all that is not a
//! plain exchange takes the full client.
//!
//! Own code because the clients of hyper-util and reqwest drive each connection
//! in a task, and spend several times as much on a request.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use machina_core::Tasks;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use url::{Host, Url};

use super::guard::Guard;

/// A pool of connections to one server.
pub(super) struct Direct {
    host: Host<String>,
    port: u16,
    guard: Guard,
    /// What every request has: its path, and the name of the server.
    uri: Uri,
    host_header: HeaderValue,
    limits: Limits,
    idle: Mutex<Vec<Connection>>,
    /// Whether a task closes what is idle for too long.
    reaping: AtomicBool,
    tasks: Tasks,
}

/// The limits of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connect_timeout: Duration,
    pub(super) idle_max: usize,
    pub(super) idle_timeout: Duration,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Broken {
    /// No connection came about: nothing was sent.
    Connecting(io::Error),
    /// The connection broke, and what was sent may have arrived.
    Exchanging(hyper::Error),
}

type Driver = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// One connection. It makes progress only while someone polls it.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it is over: only what is dropped gives back what it did not send.
    driver: Option<Pin<Box<Driver>>>,
    used: Instant,
}

/// A response whose body still comes over its connection.
pub(super) struct DirectResponse {
    pub(super) head: Response<()>,
    body: Incoming,
    connection: Option<Connection>,
    pool: Arc<Direct>,
}

impl Direct {
    /// A pool for the server of `url`; `None` if it takes the full client.
    pub(super) fn for_url(url: &Url, limits: Limits, guard: Guard, tasks: Tasks) -> Option<Arc<Self>> {
        let plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
        let host = url.host().filter(|_| plain)?.to_owned();
        let authority = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        };
        Some(Arc::new(Self {
            host,
            port: url.port_or_known_default()?,
            guard,
            uri: url[url::Position::BeforePath..url::Position::AfterQuery].parse().ok()?,
            host_header: HeaderValue::from_str(&authority).ok()?,
            limits,
            idle: Mutex::default(),
            reaping: AtomicBool::new(false),
            tasks,
        }))
    }

    /// Posts `body` and returns when the head of the response is here. Repeats
    /// only what an idle connection did not take.
    pub(super) async fn post(self: &Arc<Self>, headers: HeaderMap, body: Bytes) -> Result<DirectResponse, Broken> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.host_header.clone());
        loop {
            let (mut connection, kept) = match self.kept().await {
                Some(connection) => (connection, true),
                None => (self.connect().await.map_err(Broken::Connecting)?, false),
            };
            match connection.exchange(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let head = Response::from_parts(head, ());
                    return Ok(DirectResponse { head, body, connection: Some(connection), pool: Arc::clone(self) });
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if kept => request = unsent,
                    Some(_) => return Err(Broken::Connecting(io::Error::other(failed.into_error()))),
                    None => return Err(Broken::Exchanging(failed.into_error())),
                },
            }
        }
    }

    /// An idle connection that the server has not closed.
    async fn kept(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle().pop()?;
            let stale = connection.used.elapsed() >= self.limits.idle_timeout;
            if !stale && connection.is_usable().await {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        let connecting = async {
            let stream = self.guard.dial(&self.host, self.port).await?;
            stream.set_nodelay(true)?;
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            Ok(Connection { sender, driver: Some(Box::pin(driver)), used: Instant::now() })
        };
        let limit = self.limits.connect_timeout;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"));
        timeout(limit, connecting).await.map_err(late)?
    }

    /// Keeps a connection whose response has been read.
    fn keep(self: &Arc<Self>, mut connection: Connection) {
        connection.used = Instant::now();
        {
            let mut idle = self.idle();
            if idle.len() >= self.limits.idle_max {
                return;
            }
            idle.push(connection);
        }
        if !self.reaping.swap(true, Ordering::AcqRel) {
            let reaping = Arc::downgrade(self);
            let pause = self.limits.idle_timeout;
            self.tasks.spawn("close idle connections", async move {
                loop {
                    sleep(pause).await;
                    let Some(pool) = reaping.upgrade() else { return };
                    let mut idle = pool.idle();
                    idle.retain(|connection| connection.used.elapsed() < pause);
                    if idle.is_empty() {
                        pool.reaping.store(false, Ordering::Release);
                        return;
                    }
                }
            });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Whether it takes another request; a server that has closed it is noticed here.
    async fn is_usable(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(!self.is_over(cx))).await && self.sender.is_ready()
    }

    /// Makes progress; true once there is no more to make.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            self.driver = None;
        }
        self.driver.is_none()
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            self.is_over(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }
}

/// Shows no path: it may hold a secret.
impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Shows no header: one may hold the id of a session.
impl fmt::Debug for DirectResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectResponse").field("status", &self.head.status()).finish_non_exhaustive()
    }
}

impl DirectResponse {
    /// The next piece of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        if self.body.is_end_stream() {
            // All of it came: what becomes of the connection is no part of the answer.
            self.release().await;
            return Ok(None);
        }
        let chunk = poll_fn(|cx| self.poll_chunk(cx)).await;
        if matches!(chunk, Ok(None)) || self.body.is_end_stream() {
            self.release().await;
        }
        chunk
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, hyper::Error>> {
        if let Poll::Ready(chunk) = self.poll_body(cx) {
            return Poll::Ready(chunk);
        }
        if self.connection.as_mut().is_some_and(|connection| connection.is_over(cx)) {
            // What it has read before it ended is still in the body.
            self.connection = None;
        }
        self.poll_body(cx)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, hyper::Error>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
            }
        }
    }

    /// Gives the connection back when the whole body has been read.
    async fn release(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_usable().await
        {
            self.pool.keep(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machina_core::Reach;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn pool(path: &str) -> (TcpListener, Arc<Direct>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}{path}", listener.local_addr().unwrap())).unwrap();
        let limits = Limits { connect_timeout: PATIENCE, idle_max: 4, idle_timeout: PATIENCE };
        (listener, Direct::for_url(&url, limits, Guard::new(Reach::inside()), Tasks::new()).unwrap())
    }

    /// Reads one request, which ends with `body`, and answers it.
    async fn serve_one(stream: &mut TcpStream, answer: &[u8]) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"body") {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
        }
        stream.write_all(answer).await.unwrap();
        String::from_utf8_lossy(&read).into_owned()
    }

    #[tokio::test]
    async fn a_request_that_meets_the_end_of_its_connection_is_given_back_unsent() {
        let (listener, direct) = pool("/").await;
        let mut connection = direct.connect().await.unwrap();
        assert!(connection.is_usable().await);
        // The end comes after the connection was found to be open.
        drop(listener.accept().await.unwrap());
        sleep(Duration::from_millis(50)).await;
        let request = Request::new(Full::new(Bytes::from_static(b"body")));
        let mut failed = timeout(PATIENCE, connection.exchange(request)).await.expect("it is over").unwrap_err();
        assert!(failed.take_message().is_some(), "{failed:?}");
    }

    #[tokio::test]
    async fn a_request_that_was_sent_is_not_given_back() {
        let (listener, direct) = pool("/").await;
        let mut connection = direct.connect().await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = Request::new(Full::new(Bytes::from_static(b"body")));
        let (failed, read) = tokio::join!(timeout(PATIENCE, connection.exchange(request)), async move {
            let read = serve_one(&mut stream, b"").await;
            drop(stream);
            read
        });
        assert!(read.ends_with("body"), "{read}");
        assert!(failed.expect("it is over").unwrap_err().take_message().is_none());
    }

    #[tokio::test]
    async fn a_connection_is_kept_when_its_response_was_read_and_no_secret_is_shown() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nmcp-session-id: hidden\r\ncontent-length: 2\r\n\r\nok";
        let (listener, direct) = pool("/?key=hidden").await;
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            ([serve_one(&mut stream, ANSWER).await, serve_one(&mut stream, ANSWER).await], stream)
        };
        let asking = async {
            for _ in 0..2 {
                let mut response = direct.post(HeaderMap::new(), Bytes::from_static(b"body")).await.unwrap();
                assert!(!format!("{direct:?}{response:?}").contains("hidden"));
                assert_eq!(response.chunk().await.unwrap().unwrap(), "ok");
                assert_eq!(response.chunk().await.unwrap(), None);
                assert_eq!(direct.idle().len(), 1);
            }
        };
        let both = timeout(PATIENCE, async { tokio::join!(serving, asking) });
        let ((requests, _open), ()) = both.await.expect("both end");
        assert!(requests.iter().all(|request| request.starts_with("POST /?key=hidden HTTP/1.1")), "{requests:?}");
    }

    #[tokio::test]
    async fn a_server_that_has_said_all_may_close_the_connection_at_once() {
        const EVENT: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok";
        const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        const END: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok";
        for answer in [LENGTH, END, EVENT] {
            for pause in [0, 20] {
                let (listener, direct) = pool("/").await;
                let serving = async {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    serve_one(&mut stream, answer).await;
                    drop(stream);
                };
                let asking = async {
                    let mut response = direct.post(HeaderMap::new(), Bytes::from_static(b"body")).await.unwrap();
                    sleep(Duration::from_millis(pause)).await;
                    assert_eq!(response.chunk().await.unwrap().unwrap(), "ok");
                    assert_eq!(response.chunk().await.is_ok_and(|rest| rest.is_none()), answer != EVENT);
                };
                timeout(PATIENCE, async { tokio::join!(serving, asking) }).await.expect("both end");
                assert!(direct.idle().is_empty());
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_comes_before_the_request_was_read_is_an_answer_and_ends_the_connection() {
        let (listener, direct) = pool("/").await;
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 16];
            stream.read_exact(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
            stream
        };
        let asking = async {
            let mut response = direct.post(HeaderMap::new(), vec![b'x'; 64 * 1024 * 1024].into()).await.unwrap();
            assert_eq!(response.head.status(), 413);
            assert_eq!(response.chunk().await.unwrap().unwrap(), "no");
            assert!(direct.idle().is_empty(), "the rest of the request has nowhere to go");
        };
        timeout(PATIENCE, async { tokio::join!(serving, asking) }).await.expect("both end");
    }
}
