//! A link to a child process over its standard streams. Starts the process together with the tasks that serve its
//! pipes, and ends them together. Refuses to end a child in passing: who wants that politely calls for it and waits.

use std::sync::Arc;

use async_trait::async_trait;
use machina_core::{Error, Result, Tasks};
use serde_json::Value;
use tokio::sync::watch;

use super::child::{Custody, Patience, Process, Program, Streams};
use super::config::StdioConfig;
use super::conversation::{Conversation, exchange, notify};
use super::events::Events;
use super::link::{Dialect, Link, OnAside, Request};
use super::pipes::Pipes;
use super::secrets::Secrets;
use super::supervisor::Supervisor;
use super::wire::Object;

/// A running child and its connection.
#[derive(Debug)]
pub(crate) struct StdioLink {
    pipes: Arc<Pipes>,
    process_id: Option<u32>,
    stop: watch::Sender<Option<Patience>>,
    ended: watch::Receiver<bool>,
    polite: Patience,
}

impl StdioLink {
    /// Starts `program` and the tasks that serve its streams; `tasks` end with it.
    pub(crate) async fn start(
        (program, secrets): &(Program, Secrets),
        custody: &Custody,
        config: &StdioConfig,
        events: Arc<Events>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let (process, Streams { stdin, stdout, stderr }) = Process::start(program, custody).await?;
        let peer = format!("`{}`", program.command);
        let conversation = Conversation::new(peer, events, secrets.clone(), config.message_bytes_max);
        let (pipes, messages) = Pipes::new(conversation, config);
        let (stop, stop_wanted) = watch::channel(None);
        let (ended_in, ended) = watch::channel(false);
        let process_id = process.id();
        let (read_in, read) = watch::channel(false);
        let (drained_in, drained) = watch::channel(false);
        let [writer, reader, drain] = std::array::from_fn(|_| pipes.clone());
        tasks.spawn("mcp-stdin", async move { writer.write(stdin, messages).await });
        tasks.spawn("mcp-stdout", async move {
            reader.read(stdout).await;
            read_in.send_replace(true);
        });
        tasks.spawn("mcp-stderr", async move {
            drain.drain(stderr).await;
            drained_in.send_replace(true);
        });
        let supervisor = Supervisor { process, pipes: pipes.clone(), stop_wanted, streams_ended: [read, drained] };
        tasks.spawn("mcp-child", supervisor.run(program.command.clone(), ended_in, tasks.clone()));
        let polite = Patience { after_eof: config.stop_after_eof, after_term: config.stop_after_term };
        Ok(Self { pipes, process_id, stop, ended, polite })
    }

    /// The last lines of stderr, if there are any.
    pub(crate) fn stderr_summary(&self) -> Option<String> {
        self.pipes.last_words()
    }

    /// Ends the child at once, and returns when it is reaped.
    pub(crate) async fn kill(&self) {
        self.end(Patience::NONE).await;
    }

    async fn end(&self, patience: Patience) {
        self.stop.send_replace(Some(patience));
        self.pipes.conversation.events.close(Error::unavailable("the session was closed"));
        self.pipes.close_queue();
        let mut ended = self.ended.clone();
        // An error means that the supervisor is gone, and the group with it.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

#[async_trait]
impl Link for StdioLink {
    async fn exchange(&self, request: Request<'_>, on_aside: OnAside<'_>) -> Result<Value> {
        exchange(&*self.pipes, request, on_aside).await
    }

    async fn notify(&self, method: &str, params: &Object, _dialect: &Dialect) -> Result<()> {
        notify(&*self.pipes, method, params).await
    }

    async fn follow(&self, _dialect: &Dialect) {
        // What a child says outside of an answer arrives on the same stream.
    }

    fn secrets(&self) -> &Secrets {
        &self.pipes.conversation.secrets
    }

    fn stderr_tail(&self) -> String {
        self.pipes.stderr.text()
    }

    fn complaint(&self) -> Option<Error> {
        self.pipes.junk.complaint().map(|error| error.with(|c| c.stderr_tail = self.pipes.last_words()))
    }

    fn process_id(&self) -> Option<u32> {
        self.process_id
    }

    async fn close(&self, _dialect: &Dialect) {
        self.end(self.polite).await;
    }

    async fn kill(&self, _dialect: &Dialect) {
        self.end(Patience::NONE).await;
    }
}

impl Drop for StdioLink {
    fn drop(&mut self) {
        self.pipes.close_queue();
        self.stop.send_if_modified(|stop| {
            // A stop under way keeps its patience.
            let idle = stop.is_none();
            stop.get_or_insert(Patience::NONE);
            idle
        });
    }
}
