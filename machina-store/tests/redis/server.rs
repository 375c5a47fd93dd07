//! The servers: see `tests/backing`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use machina_store::Redis;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// The Redis that all tests share.
pub(crate) fn shared_url() -> String {
    let url = std::env::var_os("MACHINA_TEST_REDIS_URL").expect(
        "MACHINA_TEST_REDIS_URL is not set: run this under `python3 tests/backing/run.py -- cargo test …`, or set it \
         to the address of a Redis",
    );
    url.into_string().expect("the address is text")
}

/// A database of it, so that a test is woken by nobody else.
pub(crate) fn database(number: u32) -> String {
    let url = shared_url();
    let (scheme, rest) = url.split_once("://").expect("it is an address");
    format!("{scheme}://{}/{number}", rest.split('/').next().unwrap_or_default())
}

/// A Redis of one test, gone with it.
#[derive(Debug)]
pub(crate) struct OwnRedis {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    told: Value,
}

impl OwnRedis {
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/backing/serve.py");
        let mut command = Command::new("python3");
        command.arg(script).arg("redis").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is there");
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut own = Self { child, orders, answers, told: Value::Null };
        own.told = loop {
            let line = own.answer();
            // What it installs first, it says on lines of its own.
            if let Ok(told) = serde_json::from_str(&line) {
                break told;
            }
        };
        own
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).unwrap();
        assert_ne!(read, 0, "tests/backing/serve.py has ended");
        line
    }

    fn variable(&self, name: &str) -> &str {
        self.told[name].as_str().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        self.variable("MACHINA_TEST_REDIS_URL").to_owned()
    }

    pub(crate) fn tls_url(&self) -> String {
        self.variable("MACHINA_TEST_REDIS_TLS_URL").to_owned()
    }

    /// The file of the authority of its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.variable("MACHINA_TEST_REDIS_CA").into()
    }

    pub(crate) fn password(&self) -> String {
        let url = self.url();
        url.split_once("default:").unwrap().1.split_once('@').unwrap().0.to_owned()
    }

    /// `kill`, `stop`, `start`, `pause` or `resume`.
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        assert_eq!(self.answer().trim(), "ok", "{order}");
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        drop(self.orders.take());
        drop(self.child.wait());
    }
}

/// A connection with the Redis that all share.
pub(crate) async fn connected() -> Redis {
    connected_to(&shared_url()).await
}

pub(crate) async fn connected_to(url: &str) -> Redis {
    let redis = Redis::open(url).await.unwrap();
    is_soon(&redis, true).await;
    redis
}

/// Waits until there is a connection, or none.
pub(crate) async fn is_soon(redis: &Redis, connected: bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while redis.is_connected() != connected {
        assert!(Instant::now() < end, "{redis:?} is not connected: {connected}");
        sleep(Duration::from_millis(5)).await;
    }
}
