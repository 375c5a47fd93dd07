//! Server-sent events out of the bytes that arrive, as far as Machina's own
//! servers write them: refuses lines and events without an end.

use machina_core::{Error, Phase, Result};

/// How many bytes an event may have.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One event; every field that did not occur is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: Option<String>,
    pub(super) event: String,
    pub(super) data: String,
}

/// Bytes that have arrived, and the event that they are about to make.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// How many of `bytes` have been read.
    read: usize,
    frame: Frame,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole event, if it has arrived.
    ///
    /// # Errors
    /// [`Rejected`](machina_core::ErrorKind::Rejected) when it is too long.
    pub(super) fn take(&mut self) -> Result<Option<Frame>> {
        while let Some(end) = self.bytes[self.read..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.bytes[self.read..self.read + end]).into_owned();
            self.read += end + 1;
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                let frame = std::mem::take(&mut self.frame);
                if frame != Frame::default() {
                    return Ok(Some(frame));
                }
            } else {
                self.field(line);
            }
        }
        if self.bytes.len() - self.read + self.frame.data.len() > FRAME_BYTES_MAX {
            let message = format!("an event has more than {FRAME_BYTES_MAX} bytes");
            return Err(Error::rejected(message).at(Phase::Answered));
        }
        Ok(None)
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.frame.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.frame.event),
            "data" => {
                if !self.frame.data.is_empty() {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            // A comment, or a field that is not used.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": watching\nid: 1.0.a\n\n: alive\n\r\nevent: x\r\nid:2.1.a\ndata: {\ndata:  }\nretry: 3\n\ndata";

    fn expected() -> Vec<Frame> {
        vec![
            Frame { id: Some("1.0.a".into()), ..Frame::default() },
            Frame { id: Some("2.1.a".into()), event: "x".into(), data: "{\n }".into() },
        ]
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        for size in 1..=STREAM.len() {
            let (mut frames, mut read) = (Frames::default(), Vec::new());
            for chunk in STREAM.as_bytes().chunks(size) {
                frames.push(chunk);
                while let Some(frame) = frames.take().unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, expected(), "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut frames = Frames::default();
        let piece = vec![b'x'; FRAME_BYTES_MAX / 2];
        frames.push(&piece);
        assert_eq!(frames.take().unwrap(), None);
        frames.push(&piece);
        frames.push(b"xx");
        assert_eq!(frames.take().unwrap_err().kind(), machina_core::ErrorKind::Rejected);
        let mut frames = Frames::default();
        let refused = (0..=FRAME_BYTES_MAX / 1024).find_map(|_| {
            frames.push(format!("data:{}\n", "y".repeat(1024)).as_bytes());
            frames.take().err()
        });
        assert!(refused.is_some(), "lines that add up");
    }
}
