//! Owns a child process: when it ends, however that comes about, so does its
//! connection, and whoever waits for an answer learns why.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use machina_core::{Error, Tasks};
use tokio::sync::watch;
use tokio::time::timeout;

use super::child::{Patience, Process};
use super::pipes::Pipes;

/// How long the streams of an ended child may take to run dry.
const DRAIN: Duration = Duration::from_secs(1);
/// What a child gets that closed its stdout and still runs.
const AFTER_STDOUT: Patience =
    Patience { after_eof: Duration::from_millis(500), after_term: Duration::from_millis(500) };

/// Waits for the end of a process, or brings it about.
pub(super) struct Supervisor {
    pub(super) process: Process,
    pub(super) pipes: Arc<Pipes>,
    /// Set when someone wants the process to end.
    pub(super) stop_wanted: watch::Receiver<Option<Patience>>,
    /// Whether stdout and stderr have ended.
    pub(super) streams_ended: [watch::Receiver<bool>; 2],
}

impl Supervisor {
    /// Runs until the process has ended; then `ended` turns true and `tasks` end.
    pub(super) async fn run(mut self, command: String, ended: watch::Sender<bool>, tasks: Tasks) {
        let status = self.until_ended().await;
        let [stdout, stderr] = &mut self.streams_ended;
        // Answers and last words may still be in the pipes.
        let dry = async {
            let _ = stdout.wait_for(|ended| *ended).await;
            let _ = stderr.wait_for(|ended| *ended).await;
        };
        let _ = timeout(DRAIN, dry).await;
        self.pipes.conversation.events.close(self.last_words(&command, status));
        self.pipes.close_queue();
        self.pipes.conversation.pending.close();
        ended.send_replace(true);
        // A process that left the group may still hold a stream open.
        tasks.cancel();
    }

    async fn until_ended(&mut self) -> std::io::Result<ExitStatus> {
        let events = self.pipes.conversation.events.clone();
        let patience = tokio::select! {
            status = self.process.ended() => return status,
            stop = wanted(&mut self.stop_wanted) => stop,
            _ = self.streams_ended[0].wait_for(|ended| *ended) => AFTER_STDOUT,
            _ = events.until_closed() => (*self.stop_wanted.borrow()).unwrap_or(Patience::NONE),
        };
        self.pipes.close_queue();
        self.process.stop(patience).await
    }

    /// The reason of an end that nobody asked for.
    fn last_words(&self, command: &str, status: std::io::Result<ExitStatus>) -> Error {
        let how = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let tail = self.pipes.last_words();
        Error::lost(format!("the process `{command}` ended ({how})")).with(|c| {
            c.hard = true;
            c.stderr_tail = tail;
        })
    }
}

async fn wanted(stop: &mut watch::Receiver<Option<Patience>>) -> Patience {
    match stop.wait_for(Option::is_some).await {
        Ok(patience) => patience.unwrap_or(Patience::NONE),
        Err(_) => Patience::NONE,
    }
}
