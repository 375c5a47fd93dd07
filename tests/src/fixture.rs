//! The fixture server as tests use it: as an endpoint that Machina starts, or
//! as an HTTP server that the test starts, and kills.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use machina_core::{HttpEndpoint, StdioEndpoint};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::{Process, fixture_binary};

/// How long the fixture may take to say where it listens.
const START: Duration = Duration::from_secs(20);
/// The first of the ports that are drawn from, and how many there are.
const KEPT_PORTS: (u16, u16) = (20_000, 12_000);

/// A running HTTP fixture in a process group of its own, which is killed when
/// this is dropped.
#[derive(Debug)]
pub struct Fixture {
    child: Child,
    process: Process,
    url: String,
    // Kept open: a server that writes to a closed stdout would fail.
    _stdout: BufReader<ChildStdout>,
}

impl Fixture {
    /// An endpoint by which Machina starts a fixture over stdio with `args`.
    #[must_use]
    pub fn stdio_spec(args: &[&str]) -> StdioEndpoint {
        let all = std::iter::once("stdio").chain(args.iter().copied());
        StdioEndpoint::new(fixture_binary().to_string_lossy(), all)
    }

    /// Starts an HTTP fixture with `args` and waits until it listens.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn http(args: &[&str]) -> Self {
        Self::http_at("127.0.0.1:0", args).await
    }

    /// The same at an address that is free again once it was killed: the system gives
    /// it to nobody else.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn http_kept(args: &[&str]) -> Self {
        Self::http_at(&format!("127.0.0.1:{}", kept_port()), args).await
    }

    /// The same at a given address, such as that of one that was killed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn http_at(listen: &str, args: &[&str]) -> Self {
        let mut command = Command::new(fixture_binary());
        command.args(["http", "--listen", listen]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().expect("the fixture can be started");
        let process = child.id().and_then(Process::of).expect("a process that was just started is there");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let url = timeout(START, address(&mut stdout)).await.expect("the fixture says in time where it listens");
        Self { child, process, url, _stdout: stdout }
    }

    /// Where it is, as an endpoint.
    #[must_use]
    pub fn endpoint(&self) -> HttpEndpoint {
        HttpEndpoint::new(&self.url)
    }

    /// Its address, which ends with `/mcp`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port, for [`Fixture::http_at`].
    ///
    /// # Panics
    /// Never: the fixture prints a full address.
    #[must_use]
    pub fn authority(&self) -> &str {
        let rest = self.url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/mcp"));
        rest.expect("the fixture prints a full address")
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub async fn kill(&mut self) {
        self.process.signal_group(Signal::KILL);
        self.child.wait().await.expect("a child can be waited for");
    }

    /// Replaces its faults: `{"status": 429, "retry_after": 1, "silent": true}`,
    /// each optional; `{}` mends it.
    ///
    /// # Panics
    /// If the fixture does not take them.
    pub async fn set_faults(&self, faults: Value) {
        let url = format!("http://{}/faults", self.authority());
        let response = reqwest::Client::new().post(url).json(&faults).send().await.expect("the fixture answers");
        assert!(response.status().is_success(), "{}", response.text().await.unwrap_or_default());
    }
}

/// A free port below those that the system gives to connections.
fn kept_port() -> u16 {
    let (first, count) = KEPT_PORTS;
    loop {
        let port = first + u16::try_from(RandomState::new().hash_one(()) % u64::from(count)).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

async fn address(stdout: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        let read = stdout.read_line(&mut line).await.expect("stdout of the fixture can be read");
        assert!(read > 0, "the fixture ended before it said where it listens; its stderr is above");
        // Junk may come first, if the test asked for it.
        if let Ok(Value::Object(said)) = serde_json::from_str(&line)
            && let Some(url) = said.get("url").and_then(Value::as_str)
        {
            return url.to_owned();
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Once it was waited for, its number may belong to someone else.
        if self.child.id().is_some() {
            self.process.signal_group(Signal::KILL);
        }
    }
}
