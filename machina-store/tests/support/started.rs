//! A server of one test, started by `tests/backing/serve.py` and gone with the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

#[derive(Debug)]
pub(crate) struct Started {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    told: Value,
}

impl Started {
    /// `postgres` or `redis`.
    pub(crate) fn of(kind: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/backing/serve.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(kind).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is there");
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut started = Self { child, orders, answers, told: Value::Null };
        started.told = loop {
            // What it installs first, it says on lines of its own.
            if let Ok(told) = serde_json::from_str(&started.answer()) {
                break told;
            }
        };
        started
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).unwrap();
        assert_ne!(read, 0, "tests/backing/serve.py has ended");
        line
    }

    /// What it said of itself, by the name of a variable.
    pub(crate) fn told(&self, name: &str) -> &str {
        self.told[name].as_str().unwrap()
    }

    /// `kill`, `stop`, `start`, `pause` or `resume`.
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        assert_eq!(self.answer().trim(), "ok", "{order}");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.orders.take());
        drop(self.child.wait());
    }
}
