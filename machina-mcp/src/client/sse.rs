//! Server-sent events out of a stream of bytes. Refuses events larger than the
//! limit, which ends the stream.

use super::lines::{Line, Lines};

/// One event.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) data: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) retry_ms: Option<u64>,
}

/// Collects bytes until an event is complete.
#[derive(Debug)]
pub(crate) struct Parser {
    lines: Lines,
    limit: usize,
    event: Event,
    begun: bool,
    failed: bool,
}

/// An event was larger than the limit, or not text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Parser {
    /// A parser for events of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { lines: Lines::new(limit), limit, event: Event::default(), begun: true, failed: false }
    }

    /// Takes `bytes` and appends every event that they complete to `events`.
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Malformed> {
        let Self { lines, limit, event, begun, failed } = self;
        lines.push(bytes, |line| match line {
            Line::Whole(line) => match std::str::from_utf8(&line) {
                Ok("") => {
                    let event = std::mem::take(event);
                    if event != Event::default() {
                        events.push(event);
                    }
                }
                Ok(text) => {
                    let text = if std::mem::take(begun) { text.trim_start_matches('\u{feff}') } else { text };
                    *failed |= !event.take(text, *limit);
                }
                Err(_) => *failed = true,
            },
            Line::TooLong { .. } => *failed = true,
        });
        if self.failed { Err(Malformed) } else { Ok(()) }
    }
}

impl Event {
    /// Takes one line; false if the event grows too large.
    fn take(&mut self, line: &str, limit: usize) -> bool {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                let data = match self.data.take() {
                    Some(data) => data + "\n" + value,
                    None => value.to_owned(),
                };
                let fits = data.len() <= limit;
                self.data = Some(data);
                return fits;
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" => self.retry_ms = value.parse().ok().or(self.retry_ms),
            // A comment, the type of the event, or something unknown.
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, cut: usize) -> Result<Vec<Event>, Malformed> {
        let (mut parser, mut events) = (Parser::new(64), Vec::new());
        parser.push(&text.as_bytes()[..cut], &mut events)?;
        parser.push(&text.as_bytes()[cut..], &mut events)?;
        Ok(events)
    }

    #[test]
    fn events_are_found_wherever_the_stream_is_cut() {
        let text = "\u{feff}: hello\nid: 1\nretry: 500\ndata:\n\nevent: message\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata: lost";
        for cut in 0..=text.len() {
            let events = all(text, cut).unwrap();
            let first = Event { data: Some(String::new()), id: Some("1".into()), retry_ms: Some(500) };
            let second = Event { data: Some("{\"a\":\n1}".into()), ..Event::default() };
            assert_eq!(events, [first, second], "cut at {cut}");
        }
    }

    #[test]
    fn an_event_over_the_limit_and_bad_text_end_the_stream() {
        assert_eq!(all(&format!("data: {}\n\n", "x".repeat(80)), 0), Err(Malformed));
        assert_eq!(all(&format!("data: {0}\ndata: {0}\n\n", "x".repeat(50)), 0), Err(Malformed));
        let mut parser = Parser::new(64);
        assert_eq!(parser.push(b"data: \xff\n", &mut Vec::new()), Err(Malformed));
    }
}
