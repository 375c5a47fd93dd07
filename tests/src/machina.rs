//! The real binary `machina`, run as a person runs it.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machina_core::Tasks;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::{Process, machina_binary, wait_until};

/// How long the server may take to print its address.
const START: Duration = Duration::from_secs(30);

/// A running `machina serve` with a store and a home of its own, killed with
/// everything it started when this is dropped.
#[derive(Debug)]
pub struct MachinaProcess {
    child: Child,
    process: Process,
    url: String,
    output: Output,
    _tasks: Tasks,
    /// Taken by the next process on the same store.
    home: Option<TempDir>,
}

/// An answer of the REST interface.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null if it is empty.
    pub body: Value,
}

/// What a process printed so far, on stdout and stderr together.
#[derive(Debug, Clone, Default)]
struct Output(Arc<Mutex<String>>);

impl Output {
    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn collect(self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    }
}

impl MachinaProcess {
    /// Starts `machina serve --listen 127.0.0.1:0 --store sqlite:…` with `args`
    /// after it, and waits until it prints its address.
    ///
    /// # Panics
    /// If it does not start; the message holds what it printed.
    pub async fn serve(args: &[&str]) -> Self {
        Self::serve_in(tempfile::tempdir().expect("a temporary directory can be made"), args).await
    }

    /// Kills it with SIGKILL, and starts another one on the same store.
    ///
    /// # Panics
    /// As [`MachinaProcess::serve`].
    pub async fn kill_and_restart(mut self, args: &[&str]) -> Self {
        let left = self.process.descendants();
        self.process.signal(Signal::KILL);
        self.child.wait().await.expect("a child can be waited for");
        left.into_iter().for_each(|process| process.signal(Signal::KILL));
        let home = self.home.take().expect("a running process has a home");
        Self::serve_in(home, args).await
    }

    /// Starts `machina serve` on a store that it shares with others, with
    /// `variables` in its environment, and waits until it prints its address.
    ///
    /// # Panics
    /// As [`MachinaProcess::serve`].
    pub async fn serve_replica(store: &str, variables: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        Self::start(home, store, variables, &[]).await
    }

    async fn serve_in(home: TempDir, args: &[&str]) -> Self {
        let store = format!("sqlite:{}", home.path().join("machina.db").display());
        Self::start(home, &store, &[], args).await
    }

    async fn start(home: TempDir, store: &str, variables: &[(&str, &str)], args: &[&str]) -> Self {
        let mut command = Command::new(machina_binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", store]).args(args);
        command.envs(variables.iter().copied());
        command.current_dir(home.path()).env("HOME", home.path()).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn().expect("machina can be started");
        let process = child.id().and_then(Process::of).expect("a process that was just started is there");
        let (output, tasks) = (Output::default(), Tasks::new());
        tasks.spawn("read stdout", output.clone().collect(child.stdout.take().expect("stdout is a pipe")));
        tasks.spawn("read stderr", output.clone().collect(child.stderr.take().expect("stderr is a pipe")));
        let url = wait_until(START, "machina serve prints its address", async || {
            let said = output.text();
            let ended = child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "machina serve ended with {ended:?}:\n{said}");
            address_in(&said).ok_or(said)
        })
        .await;
        Self { child, process, url, output, _tasks: tasks, home: Some(home) }
    }

    /// Its address, such as `http://127.0.0.1:41234`, without a path.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// The shepherd of its children, if one runs.
    #[must_use]
    pub fn shepherd(&self) -> Option<Process> {
        let is_shepherd = |process: &Process| process.command_line().get(1).is_some_and(|word| word == "shepherd");
        self.process.descendants().into_iter().find(is_shepherd)
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Asks the REST interface.
    ///
    /// # Panics
    /// If there is no answer, or one that is no JSON.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        ask(method, &format!("{}{path}", self.url), body).await
    }

    /// `GET` of a path.
    ///
    /// # Panics
    /// As [`MachinaProcess::ask`].
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    /// `POST` of a body to a path.
    ///
    /// # Panics
    /// As [`MachinaProcess::ask`].
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Sends a signal to it alone, as a terminal or a service manager would.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it has not when `patience` is over.
    pub async fn ended(&mut self, patience: Duration) -> ExitStatus {
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => status.expect("a child can be waited for"),
            Err(_) => panic!("machina has not ended after {patience:?}:\n{}", self.output.text()),
        }
    }
}

/// Asks for JSON over HTTP.
///
/// # Panics
/// If there is no answer, or one that is no JSON.
pub async fn ask(method: Method, url: &str, body: Option<&Value>) -> Answer {
    let mut request = reqwest::Client::new().request(method, url);
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap_or_else(|error| panic!("{url} does not answer: {error}"));
    let status = response.status().as_u16();
    let text = response.text().await.unwrap_or_else(|error| panic!("{url} breaks off its answer: {error}"));
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{url} answers {status} with no JSON: {text}"))
    };
    Answer { status, body }
}

fn address_in(output: &str) -> Option<String> {
    let start = output.find("http://127.0.0.1:")?;
    let rest = &output[start..];
    let end = rest["http://".len()..].find(|c: char| !(c.is_ascii_digit() || ".:".contains(c)))? + "http://".len();
    Some(rest[..end].to_owned())
}

impl Drop for MachinaProcess {
    fn drop(&mut self) {
        if self.child.id().is_some() {
            let left = self.process.descendants();
            self.process.signal_group(Signal::KILL);
            left.into_iter().for_each(|process| process.signal(Signal::KILL));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_address_in_what_is_printed() {
        assert_eq!(
            address_in("x\nListening on http://127.0.0.1:4711/ (REST)\n").as_deref(),
            Some("http://127.0.0.1:4711")
        );
        assert_eq!(address_in("http://127.0.0.1:47"), None, "the line may go on");
        assert_eq!(address_in("starting"), None);
    }
}
