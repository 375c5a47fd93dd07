//! A link to a child process over its standard streams: one JSON-RPC message per
//! line. Refuses to let one child harm another: every queue and line is bounded,
//! a child that does not read its stdin loses its session, junk is skipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use machina_core::{Error, Phase, Result, Tasks};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::child::{Patience, Process, Program, Streams};
use super::config::StdioConfig;
use super::events::Events;
use super::lines::{Line, Lines};
use super::link::{Dialect, Link, OnAside, Request, Stage, meta_of, rejected, shown, unanswered};
use super::pending::{Answer, Pending};
use super::ring::Ring;
use super::secrets::Secrets;
use super::supervisor::Supervisor;
use super::wire::{self, Incoming, Object};

/// How many messages may wait to be written; their bytes are limited too.
const QUEUE_MAX: usize = 256;
/// The longest answer to a request of a child: its id is the child's choice.
const REPLY_BYTES_MAX: usize = 1_024;
/// How many lines that are no message are kept for diagnosis, and how many characters of each.
const JUNK_MAX: u64 = 50;
const JUNK_CHARS_MAX: usize = 200;
/// How long the news of a child's end may take after its stdin has closed.
const END_NEWS: Duration = Duration::from_secs(1);
/// How much of stderr goes into an error.
pub(super) const TAIL_LINES: usize = 12;
pub(super) const TAIL_CHARS: usize = 2_000;

/// A running child and its connection.
#[derive(Debug)]
pub(crate) struct StdioLink {
    shared: Arc<Shared>,
    command: String,
    process_id: Option<u32>,
    stop: watch::Sender<Option<Patience>>,
    ended: watch::Receiver<bool>,
    polite: Patience,
    next_id: AtomicU64,
    write_timeout: Duration,
    message_bytes_max: usize,
    queue_bytes: Arc<Semaphore>,
}

/// What the link and its tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) pending: Pending,
    pub(super) events: Arc<Events>,
    pub(super) stderr: Ring,
    junk: AtomicU64,
    queue: std::sync::Mutex<Option<mpsc::Sender<Frame>>>,
}

/// A message on its way to the child.
struct Frame {
    bytes: Vec<u8>,
    stage: Option<Arc<Stage>>,
    _room: Option<OwnedSemaphorePermit>,
}

impl StdioLink {
    /// Starts `program` and the tasks that serve its streams; `tasks` end with it.
    pub(crate) fn start(
        program: &Program,
        secrets: Secrets,
        config: &StdioConfig,
        events: Arc<Events>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let (process, Streams { stdin, stdout, stderr }) = Process::start(program)?;
        let (queue, frames) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::new(Shared {
            pending: Pending::new(),
            events,
            stderr: Ring::new(config.stderr_bytes_max, secrets),
            junk: AtomicU64::new(0),
            queue: std::sync::Mutex::new(Some(queue)),
        });
        let (stop, stop_wanted) = watch::channel(None);
        let (ended_in, ended) = watch::channel(false);
        let process_id = process.id();
        let (read_in, read_end) = watch::channel(false);
        let (drained_in, drained) = watch::channel(false);
        tasks.spawn("mcp-stdin", write(stdin, frames, shared.clone(), config.write_timeout));
        let reader = shared.clone();
        let limit = config.message_bytes_max;
        tasks.spawn("mcp-stdout", async move {
            reader.read(stdout, limit).await;
            read_in.send_replace(true);
        });
        let keeper = shared.clone();
        tasks.spawn("mcp-stderr", async move {
            keeper.keep(stderr).await;
            drained_in.send_replace(true);
        });
        let supervisor =
            Supervisor { process, shared: shared.clone(), stop_wanted, streams_ended: [read_end, drained] };
        let command = program.command.clone();
        tasks.spawn("mcp-child", supervisor.run(command.clone(), ended_in, tasks.clone()));
        Ok(Self {
            shared,
            command,
            process_id,
            stop,
            ended,
            polite: Patience { after_eof: config.stop_after_eof, after_term: config.stop_after_term },
            next_id: AtomicU64::new(1),
            write_timeout: config.write_timeout,
            message_bytes_max: config.message_bytes_max,
            queue_bytes: Arc::new(Semaphore::new(config.queue_bytes_max)),
        })
    }

    /// The last lines of stderr, if there are any.
    pub(crate) fn stderr_summary(&self) -> Option<String> {
        self.shared.stderr.tail(TAIL_LINES, TAIL_CHARS)
    }

    /// Ends the child at once, and returns when it is reaped.
    pub(crate) async fn kill(&self) {
        self.end(Patience::NONE).await;
    }

    async fn end(&self, patience: Patience) {
        self.stop.send_replace(Some(patience));
        self.shared.events.close(Error::unavailable("the session was closed"));
        self.shared.close_queue();
        let mut ended = self.ended.clone();
        // An error means that the supervisor is gone, and the group with it.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    async fn enqueue(&self, bytes: Vec<u8>, stage: Option<Arc<Stage>>) -> Result<()> {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let queue = self.shared.queue().ok_or_else(|| self.failure(Phase::NotSent))?;
        let send = async {
            let room = self.queue_bytes.clone().acquire_many_owned(size).await.ok();
            queue.send(Frame { bytes, stage, _room: room }).await.is_ok()
        };
        match timeout(self.write_timeout, send).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.failure(Phase::NotSent)),
            Err(_) => {
                let message = format!("`{}` does not take its input fast enough", self.command);
                Err(Error::overloaded(message).at(Phase::NotSent))
            }
        }
    }

    /// Why a request failed that got no answer because the link is over.
    fn failure(&self, phase: Phase) -> Error {
        match self.shared.events.closed() {
            Some(reason) => {
                let context = reason.context().clone();
                let message = reason.message().to_owned();
                unanswered(message, phase).with(|c| {
                    c.hard = context.hard;
                    c.stderr_tail = context.stderr_tail;
                })
            }
            None => unanswered(format!("the connection to `{}` is closed", self.command), phase),
        }
    }
}

#[async_trait]
impl Link for StdioLink {
    async fn exchange(&self, request: Request<'_>, on_aside: OnAside<'_>) -> Result<Value> {
        let Request { method, mut params, dialect, stage, progress, logs, .. } = request;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        dialect.stamp(&mut params);
        if progress {
            meta_of(&mut params).insert("progressToken".into(), id.into());
        }
        let bytes = wire::request(id, method, &params);
        if bytes.len() > self.message_bytes_max {
            let detail = format!("must fit into {} bytes, has {}", self.message_bytes_max, bytes.len());
            return Err(Error::invalid_field("params", detail).at(Phase::NotSent));
        }
        let mut waiter = self.shared.pending.add(id, logs).ok_or_else(|| self.failure(Phase::NotSent))?;
        let mut guard = Cancel { shared: &self.shared, id, stage, upstream: method != "initialize" };
        self.enqueue(bytes, Some(stage.clone())).await?;
        let answer = loop {
            tokio::select! {
                biased;
                Some(aside) = waiter.asides.recv() => on_aside(aside),
                answer = &mut waiter.answer => break answer,
            }
        };
        guard.upstream = false;
        match answer {
            Ok(Answer::Given(Ok(result))) => Ok(result),
            Ok(Answer::Given(Err(error))) => Err(rejected(method, &error, dialect.era, self.shared.stderr.secrets())),
            Ok(Answer::TooLong(bytes)) => {
                let message =
                    format!("the answer to {method} has {bytes} bytes; {} are accepted", self.message_bytes_max);
                Err(Error::rejected(message).at(Phase::Answered))
            }
            Err(_) => Err(self.failure(stage.phase())),
        }
    }

    async fn notify(&self, method: &str, params: &Object, _dialect: &Dialect) -> Result<()> {
        self.enqueue(wire::notification(method, params), None).await
    }

    async fn follow(&self, _dialect: &Dialect) {
        // What a child says outside of an answer arrives on the same stream.
    }

    fn secrets(&self) -> &Secrets {
        self.shared.stderr.secrets()
    }

    fn stderr_tail(&self) -> String {
        self.shared.stderr.text()
    }

    fn process_id(&self) -> Option<u32> {
        self.process_id
    }

    async fn close(&self, _dialect: &Dialect) {
        self.end(self.polite).await;
    }
}

impl Drop for StdioLink {
    fn drop(&mut self) {
        self.shared.close_queue();
        self.stop.send_if_modified(|stop| {
            // A stop under way keeps its patience.
            let idle = stop.is_none();
            stop.get_or_insert(Patience::NONE);
            idle
        });
    }
}

/// Cancels a request upstream when its future is dropped before the answer came.
struct Cancel<'a> {
    shared: &'a Shared,
    id: u64,
    stage: &'a Stage,
    upstream: bool,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        self.shared.pending.remove(self.id);
        if self.upstream && !self.stage.abandon() {
            self.shared.post(wire::cancellation(self.id, &Object::new()));
        }
    }
}

impl Shared {
    fn queue(&self) -> Option<mpsc::Sender<Frame>> {
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Takes no more messages; stdin closes when those that wait are written.
    pub(super) fn close_queue(&self) {
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    /// Queues a message that nobody waits for; a full queue drops it.
    fn post(&self, bytes: Vec<u8>) {
        let frame = Frame { bytes, stage: None, _room: None };
        if let Some(Err(error)) = self.queue().map(|queue| queue.try_send(frame)) {
            tracing::debug!(%error, "a message to a child was dropped");
        }
    }

    /// The child takes no more messages. If it has ended, its supervisor says so
    /// and more; one that goes on without its stdin is of no use either.
    async fn stdin_closed(&self, error: &std::io::Error) {
        if timeout(END_NEWS, self.events.until_closed()).await.is_err() {
            let tail = self.stderr.tail(TAIL_LINES, TAIL_CHARS);
            let message = format!("the process no longer takes messages on its stdin: {error}");
            self.events.close(Error::lost(message).with(|c| c.stderr_tail = tail));
        }
    }

    async fn read(&self, mut stdout: ChildStdout, limit: usize) {
        let mut lines = Lines::new(limit);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match stdout.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => lines.push(&buffer[..count], |line| self.take(line)),
            }
        }
    }

    async fn keep(&self, mut stderr: ChildStderr) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match stderr.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => self.stderr.push(&buffer[..count]),
            }
        }
    }

    fn take(&self, line: Line) {
        match line {
            Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => {}
            Line::Whole(line) => {
                let messages = Incoming::parse(&line);
                if messages.is_empty() {
                    self.junk(&String::from_utf8_lossy(&line));
                }
                messages.into_iter().for_each(|message| self.dispatch(message));
            }
            Line::TooLong { head, tail, bytes } => match wire::id_of_truncated(&head, &tail) {
                Some(id) => _ = self.pending.answer(Some(id), Answer::TooLong(bytes)),
                None => self.junk(&format!("a line of {bytes} bytes that is no answer")),
            },
        }
    }

    fn dispatch(&self, message: Incoming) {
        match message {
            Incoming::Response { id, outcome } => {
                if !self.pending.answer(id, Answer::Given(outcome)) {
                    tracing::trace!(id, "an answer came too late");
                }
            }
            Incoming::Request { id, method } => {
                let reply = wire::reply(&id, &method);
                // Replies wait in a queue without a limit of bytes: none of them is long.
                if reply.len() <= REPLY_BYTES_MAX {
                    self.post(reply);
                }
            }
            Incoming::Notification { method, params } if method == "notifications/progress" => {
                self.pending.progress(params);
            }
            Incoming::Notification { method, params } if method == wire::LOG_MESSAGE => self.pending.log(&params),
            Incoming::Notification { method, .. } if wire::is_change(&method) => self.events.change(),
            Incoming::Notification { method, .. } => tracing::trace!(method, "a notification was passed over"),
        }
    }

    /// Counts a line that is no message and keeps the beginning of the first ones beside stderr.
    fn junk(&self, line: &str) {
        let count = self.junk.fetch_add(1, Ordering::Relaxed);
        if count < JUNK_MAX {
            // Masked before it is cut: half a secret is not recognised as one.
            let line: String = self.stderr.secrets().mask(line.to_owned()).chars().take(JUNK_CHARS_MAX).collect();
            self.stderr.push(format!("[stdout] {line}\n").as_bytes());
        } else if count == JUNK_MAX {
            self.stderr.push(b"[stdout] further lines that are no messages are not shown\n");
        }
    }
}

/// Writes the queued messages until the queue or the child ends.
async fn write(mut stdin: ChildStdin, mut frames: mpsc::Receiver<Frame>, shared: Arc<Shared>, patience: Duration) {
    while let Some(frame) = frames.recv().await {
        if frame.stage.as_ref().is_some_and(|stage| !stage.begin()) {
            continue;
        }
        let mut written = 0;
        let done = timeout(patience, write_line(&mut stdin, &frame.bytes, &mut written)).await;
        if let Some(stage) = frame.stage.as_ref().filter(|_| written == 0) {
            stage.nothing_written();
        }
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                drop(frames);
                return shared.stdin_closed(&error).await;
            }
            Err(_) => {
                let message = format!("the process did not read its stdin for {}", shown(patience));
                shared.events.close(Error::lost(message));
                return;
            }
        }
    }
}

async fn write_line(stdin: &mut ChildStdin, line: &[u8], written: &mut usize) -> std::io::Result<()> {
    while *written < line.len() {
        match stdin.write(&line[*written..]).await? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            count => *written += count,
        }
    }
    stdin.write_all(b"\n").await
}
