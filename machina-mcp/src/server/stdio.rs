//! One host at the other end of a pipe. Nothing but protocol is written; one
//! line is one message.

use std::collections::VecDeque;
use std::time::Duration;

use machina_core::{Error, Result, Scoped};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::audience::Selection;
use super::connection::{Heard, Source, converse};
use super::exposure::Exposure;
use super::gateway::{Answer, Gateway, Offer, Outgoing};
use crate::client::lines::{Line, Lines};

/// The longest message from a host, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long calls that run when stdin ends have to be answered. Hosts that stop
/// a server close its stdin and send SIGTERM two seconds later.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves one host on stdin and stdout, as the principal of `scoped`, until
/// stdin ends; `exposure` says which tools it sees. Nothing else may write to stdout meanwhile.
///
/// # Errors
/// [`Internal`](machina_core::ErrorKind::Internal) when stdin cannot be read.
pub async fn serve_stdio(scoped: Scoped, exposure: Exposure) -> Result<()> {
    serve_io(scoped, exposure, tokio::io::stdin(), tokio::io::stdout()).await
}

/// Serves one host on any two streams, until `reader` ends or `writer` breaks.
/// Calls that still run then have a second to be answered, and are cancelled.
/// Dropping the future cancels them at once. In flat mode the first list of
/// tools waits up to three seconds for services that are starting and of which
/// nothing is known yet.
///
/// # Errors
/// [`Internal`](machina_core::ErrorKind::Internal) when `reader` fails.
pub async fn serve_io<R, W>(scoped: Scoped, exposure: Exposure, reader: R, writer: W) -> Result<()>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let (lines, buffer) = (Lines::new(MESSAGE_BYTES_MAX), vec![0; 16 * 1024].into());
    let mut pipe = Pipe { reader, buffer, lines, complete: VecDeque::new() };
    let gateway = Gateway::new(scoped, Offer::new(exposure), Selection::Everything)?.starting();
    converse(gateway, &mut pipe, |queue| write(queue, writer)).await.0
}

struct Pipe<R> {
    reader: R,
    buffer: Box<[u8]>,
    lines: Lines,
    complete: VecDeque<Line>,
}

impl<R: AsyncRead + Send + Unpin> Source for Pipe<R> {
    async fn next(&mut self) -> Result<Option<Heard>> {
        loop {
            match self.complete.pop_front() {
                Some(Line::Whole(line)) if line.trim_ascii().is_empty() => continue,
                Some(Line::Whole(line)) => return Ok(Some(Heard::Message(line.into()))),
                Some(Line::TooLong { bytes, .. }) => {
                    return Ok(Some(Heard::TooLong { bytes, allowed: MESSAGE_BYTES_MAX }));
                }
                None => {}
            }
            let count = self.reader.read(&mut self.buffer).await;
            let count = count.map_err(|error| Error::internal(format!("the host cannot be read: {error}")))?;
            if count == 0 {
                return Ok(None);
            }
            self.lines.push(&self.buffer[..count], |line| self.complete.push_back(line));
        }
    }

    fn last_answers(&self) -> Duration {
        LAST_ANSWERS
    }
}

async fn write(mut queue: mpsc::Receiver<Outgoing>, mut writer: impl AsyncWrite + Unpin) {
    while let Some(outgoing) = queue.recv().await {
        let (Outgoing::Notification(mut text) | Outgoing::Answer(Answer { mut text, .. })) = outgoing;
        text.push('\n');
        let written = async {
            writer.write_all(text.as_bytes()).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, "the host no longer reads");
            return;
        }
    }
}
