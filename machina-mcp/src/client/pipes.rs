//! The three pipes of a child: messages go into its stdin one by one, its stdout is read line by line, its stderr is
//! always drained. Refuses to let one child harm another: every queue and line is bounded, a child that does not
//! read its stdin or that writes a line without end loses its session, a flood is read no faster than others can bear.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machina_core::{Error, Phase, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::config::StdioConfig;
use super::conversation::{Conversation, Frame, Line, hear};
use super::junk::Junk;
use super::lines::{self, Lines};
use super::link::shown;
use super::pending::Answer;
use super::ring::Ring;
use super::wire::{self, Incoming};

/// How many messages may wait to be written; their bytes are limited too.
const QUEUE_MAX: usize = 256;
/// How long a line may be, in bytes and in messages, whichever is more; an answer that is no longer fails alone.
const LINE_MAX: (u64, u64) = (64 * 1024 * 1024, 16);
/// How many lines that are no message are kept for diagnosis, and how many characters of each.
const JUNK_MAX: u64 = 50;
const JUNK_CHARS_MAX: usize = 200;
/// How long the news of a child's end may take after its stdin has closed.
const END_NEWS: Duration = Duration::from_secs(1);
/// How much of stderr goes into an error.
const TAIL_LINES: usize = 12;
const TAIL_CHARS: usize = 2_000;
/// As much as a pipe holds.
const PIPE: usize = 64 * 1024;
/// How much is read of one stream within which time at most: 100 MiB/s.
const FLOOD: (usize, Duration) = (8 * 1024 * 1024, Duration::from_millis(80));

/// What the link to a child and its tasks share.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) conversation: Conversation,
    pub(super) stderr: Ring,
    pub(super) junk: Junk,
    queue: Mutex<Option<mpsc::Sender<Queued>>>,
    /// Room for the bytes of the messages in the queue.
    room: Arc<Semaphore>,
    write_timeout: Duration,
}

/// A message, and the room that it takes until it is written.
#[derive(Debug)]
pub(super) struct Queued {
    frame: Frame,
    _room: Option<OwnedSemaphorePermit>,
}

impl Pipes {
    /// Pipes, and the messages that are to be written.
    pub(super) fn new(conversation: Conversation, config: &StdioConfig) -> (Arc<Self>, mpsc::Receiver<Queued>) {
        let (queue, frames) = mpsc::channel(QUEUE_MAX);
        let stderr = Ring::new(config.stderr_bytes_max, conversation.secrets.clone());
        let room = Arc::new(Semaphore::new(config.queue_bytes_max));
        let (queue, junk, write_timeout) = (Mutex::new(Some(queue)), Junk::default(), config.write_timeout);
        (Arc::new(Self { conversation, stderr, junk, queue, room, write_timeout }), frames)
    }

    /// The last lines of stderr, if there are any.
    pub(super) fn last_words(&self) -> Option<String> {
        self.stderr.tail(TAIL_LINES, TAIL_CHARS)
    }

    /// Takes no more messages; stdin closes when those that wait are written.
    pub(super) fn close_queue(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn queue(&self) -> Option<mpsc::Sender<Queued>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The child is of no use any more.
    fn give_up(&self, message: String) {
        let tail = self.last_words();
        self.conversation.events.close(Error::lost(message).with(|c| c.stderr_tail = tail));
    }

    /// Writes the queued messages until the queue or the child ends.
    pub(super) async fn write(&self, mut stdin: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Queued>) {
        while let Some(Queued { mut frame, _room }) = frames.recv().await {
            if !frame.begin() {
                continue;
            }
            // In one write with the message: each wakes the child.
            frame.bytes.push(b'\n');
            let mut written = 0;
            let done = timeout(self.write_timeout, write_all(&mut stdin, &frame.bytes, &mut written)).await;
            if written == 0 {
                frame.nothing_written();
            }
            match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    drop(frames);
                    return self.stdin_closed(&error).await;
                }
                Err(_) => {
                    return self
                        .give_up(format!("the process did not read its stdin for {}", shown(self.write_timeout)));
                }
            }
        }
    }

    /// The child takes no more messages. If it has ended, its supervisor says so
    /// and more; one that goes on without its stdin is of no use either.
    async fn stdin_closed(&self, error: &std::io::Error) {
        if timeout(END_NEWS, self.conversation.events.until_closed()).await.is_err() {
            self.give_up(format!("the process no longer takes messages on its stdin: {error}"));
        }
    }

    /// Reads stdout until it ends, or is of no use.
    pub(super) async fn read(&self, mut stdout: impl AsyncRead + Unpin) {
        let limit = self.conversation.message_bytes_max;
        let fatal = LINE_MAX.0.max(LINE_MAX.1 * limit as u64);
        let (mut lines, mut pace) = (Lines::new(limit), Pace::new());
        let mut buffer = vec![0; PIPE];
        while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
            lines.push(&buffer[..count], |line| self.take(line));
            if lines.unfinished() > fatal {
                let message = format!(
                    "the process wrote a line of more than {fatal} bytes to stdout; a message may have {limit}"
                );
                return self.give_up(message);
            }
            pace.keep(count, count == buffer.len()).await;
        }
    }

    /// Reads stderr until it ends.
    pub(super) async fn drain(&self, mut stderr: impl AsyncRead + Unpin) {
        let (mut buffer, mut pace) = (vec![0; PIPE], Pace::new());
        while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
            self.stderr.push(&buffer[..count]);
            pace.keep(count, count == buffer.len()).await;
        }
    }

    fn take(&self, line: lines::Line) {
        match line {
            lines::Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => {}
            lines::Line::Whole(line) => {
                let messages = Incoming::parse(&line);
                match messages.is_empty() {
                    true => self.pass_over(&String::from_utf8_lossy(&line)),
                    false => self.junk.end_row(),
                }
                messages.into_iter().for_each(|message| hear(self, message, line.len()));
            }
            lines::Line::TooLong { head, tail, bytes } => match wire::id_of_truncated(&head, &tail) {
                Some(id) => _ = self.conversation.pending.answer(Some(id), Answer::TooLong(bytes)),
                None => self.pass_over(&format!("a line of {bytes} bytes that is no answer")),
            },
        }
    }

    /// Counts a line that is no message and keeps the beginning of the first ones beside stderr.
    fn pass_over(&self, line: &str) {
        let before = self.junk.add();
        if before < JUNK_MAX {
            // Masked before it is cut: half a secret is not recognised as one.
            let line: String = self.conversation.secrets.mask(line.to_owned()).chars().take(JUNK_CHARS_MAX).collect();
            self.stderr.push(format!("[stdout] {line}\n").as_bytes());
        } else if before == JUNK_MAX {
            self.stderr.push(b"[stdout] further lines that are no messages are not shown\n");
        }
    }
}

impl Line for Pipes {
    const REFUSES_SINGLY: bool = false;

    fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    async fn enqueue(&self, frame: Frame) -> Result<()> {
        let size = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let queue = self.queue().ok_or_else(|| self.conversation.failure(Phase::NotSent))?;
        let send = async {
            let room = self.room.clone().acquire_many_owned(size).await.ok();
            queue.send(Queued { frame, _room: room }).await.is_ok()
        };
        match timeout(self.write_timeout, send).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.conversation.failure(Phase::NotSent)),
            Err(_) => Err(self.conversation.too_slow()),
        }
    }

    fn post(&self, bytes: Vec<u8>) {
        let queued = Queued { frame: Frame::of(bytes), _room: None };
        if let Some(Err(error)) = self.queue().map(|queue| queue.try_send(queued)) {
            tracing::debug!(%error, "a message to a child was dropped");
        }
    }
}

/// Writes `bytes`, and says how many of them were taken also when it fails or is dropped.
async fn write_all(stdin: &mut (impl AsyncWrite + Unpin), bytes: &[u8], written: &mut usize) -> std::io::Result<()> {
    while *written < bytes.len() {
        match stdin.write(&bytes[*written..]).await? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            count => *written += count,
        }
    }
    Ok(())
}

/// How fast one stream is read.
struct Pace {
    bytes: usize,
    begun: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { bytes: 0, begun: Instant::now() }
    }

    /// After `count` bytes, of which there seem to be `more`: lets others run, and rests if there is a flood.
    async fn keep(&mut self, count: usize, more: bool) {
        self.bytes += count;
        if self.bytes >= FLOOD.0 {
            sleep(FLOOD.1.saturating_sub(self.begun.elapsed())).await;
            *self = Self::new();
        } else if more {
            tokio::task::yield_now().await;
        }
    }
}
