//! A PostgreSQL of this run alone, which it may kill and start again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use machina_tests::workspace_root;
use serde_json::Value;

/// The server; it ends, and its directory goes, when this is dropped.
#[derive(Debug)]
pub(super) struct Postgres {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    told: Value,
}

impl Postgres {
    pub(super) fn start() -> Self {
        let script = workspace_root().join("tests/backing/serve.py");
        let mut command = Command::new("python3");
        command.arg(script).arg("postgres").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 can be started");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut server = Self { child, orders, answers, told: Value::Null };
        server.told = loop {
            // What it installs first, it says on lines of its own.
            if let Ok(told @ Value::Object(_)) = serde_json::from_str(&server.answer()) {
                break told;
            }
        };
        server
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).expect("serve.py can be read");
        assert_ne!(read, 0, "there is no PostgreSQL: tests/backing/serve.py has ended");
        line
    }

    pub(super) fn port(&self) -> u16 {
        let port = self.told["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        port.expect("serve.py says the port")
    }

    /// The address of its database when it is reached at another port, without
    /// encryption, so that a wire in between can tell the messages apart.
    pub(super) fn url_at(&self, port: u16) -> String {
        let url = self.told["MACHINA_TEST_POSTGRES_URL"].as_str().expect("serve.py says the address");
        let bare = url.split('?').next().unwrap_or(url);
        let (who, place) = bare.rsplit_once('@').expect("the address has a user");
        let database = place.split_once('/').map_or("machina", |(_, database)| database);
        format!("{who}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// `kill`, `stop` or `start`.
    pub(super) fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().expect("it runs"), "{order}").expect("serve.py takes orders");
        assert_eq!(self.answer().trim(), "ok", "{order}");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.orders.take());
        drop(self.child.wait());
    }
}
