//! The least that a web server can do with bytes that are known beforehand: an
//! axum handler that returns them, in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

/// The argument that makes a benchmark a bare server.
const ROLE: &str = "bare";

/// A running one; killed when dropped.
pub(crate) struct Bare {
    child: Child,
    pub(crate) address: SocketAddr,
}

#[derive(Debug)]
struct Known {
    tag: HeaderValue,
    bytes: axum::body::Bytes,
}

impl Bare {
    /// Starts one that returns `bytes` with this `ETag`; it reads them in `home`.
    pub(crate) fn start(home: &Path, tag: &str, bytes: &[u8]) -> Self {
        let file = home.join("answer.json");
        std::fs::write(&file, bytes).expect("the answer can be written");
        let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
        command.args([ROLE, tag]).arg(file).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the bare server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        Self { child, address: line.trim().parse().expect("an address") }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves, and never returns, if this process was started for that. As many
/// threads as Machina has: one for each processor.
pub(crate) fn serve_if_asked() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(ROLE) {
        return;
    }
    let tag = arguments.next().expect("an ETag").parse().expect("an ETag is a header");
    let bytes = std::fs::read(arguments.next().expect("a file")).expect("the answer can be read");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("starts");
    runtime.block_on(serve(Known { tag, bytes: bytes.into() }));
}

#[allow(clippy::print_stdout, reason = "the parent reads the address here")]
async fn serve(known: Known) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    println!("{}", listener.local_addr().expect("has an address"));
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let router = Router::new().route("/api/v1/services", get(answer)).with_state(Arc::new(known));
    axum::serve(listener, router).await.expect("serves");
}

async fn answer(State(known): State<Arc<Known>>, headers: HeaderMap) -> Response {
    let tag = [(ETAG, known.tag.clone())];
    if headers.get(IF_NONE_MATCH) == Some(&known.tag) {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    (tag, [(CONTENT_TYPE, "application/json")], known.bytes.clone()).into_response()
}
