//! Cuts a byte stream into lines of bounded length. Refuses to hold more than
//! the limit: of a longer line only its first and last bytes are kept.

/// How many bytes of an over-long line are kept at each end.
const EDGE: usize = 256;

/// One line of a stream, without its line end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line within the limit.
    Whole(Vec<u8>),
    /// A line over the limit: its first and last bytes, and how long it was.
    TooLong { head: Vec<u8>, tail: Vec<u8>, bytes: u64 },
}

/// Collects bytes until a line is complete.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    line: Vec<u8>,
    overflow: Option<Overflow>,
}

#[derive(Debug)]
struct Overflow {
    head: Vec<u8>,
    tail: Vec<u8>,
    bytes: u64,
}

impl Lines {
    /// Lines of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), overflow: None }
    }

    /// Takes `bytes` and hands every line that they complete to `each`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line)) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.extend(&bytes[..end]);
            bytes = &bytes[end + 1..];
            each(self.take());
        }
        self.extend(bytes);
    }

    /// How many bytes the line has that is not complete yet.
    pub(crate) fn unfinished(&self) -> u64 {
        self.overflow.as_ref().map_or(self.line.len() as u64, |overflow| overflow.bytes)
    }

    fn extend(&mut self, bytes: &[u8]) {
        if let Some(overflow) = &mut self.overflow {
            overflow.extend(bytes);
        } else if self.line.len() + bytes.len() <= self.limit {
            self.line.extend_from_slice(bytes);
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..bytes.len().min(EDGE)]);
            let mut overflow = Overflow { head: line[..line.len().min(EDGE)].to_vec(), tail: Vec::new(), bytes: 0 };
            overflow.extend(&line);
            overflow.extend(&bytes[bytes.len().min(EDGE)..]);
            self.overflow = Some(overflow);
        }
    }

    fn take(&mut self) -> Line {
        if let Some(Overflow { head, tail, bytes }) = self.overflow.take() {
            return Line::TooLong { head, tail, bytes };
        }
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Line::Whole(line)
    }
}

impl Overflow {
    fn extend(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let keep = &bytes[bytes.len().saturating_sub(EDGE)..];
        self.tail.extend_from_slice(keep);
        let excess = self.tail.len().saturating_sub(EDGE);
        self.tail.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines, bytes: &[u8]) -> Vec<Line> {
        let mut out = Vec::new();
        lines.push(bytes, |line| out.push(line));
        out
    }

    #[test]
    fn cuts_at_any_byte_offset() {
        let text = b"one\r\ntwo\n\nthree\n";
        for cut in 0..text.len() {
            let mut lines = Lines::new(64);
            let mut got = all(&mut lines, &text[..cut]);
            got.extend(all(&mut lines, &text[cut..]));
            assert_eq!(got, ["one", "two", "", "three"].map(|l| Line::Whole(l.into())), "cut at {cut}");
        }
    }

    #[test]
    fn an_over_long_line_is_dropped_and_the_next_is_whole() {
        let mut long = vec![b'x'; 5_000];
        long[0] = b'{';
        long[4_999] = b'}';
        for chunk in [1, 7, 300, 5_000] {
            let mut lines = Lines::new(1_000);
            let mut got = Vec::new();
            for part in long.chunks(chunk) {
                got.extend(all(&mut lines, part));
            }
            got.extend(all(&mut lines, b"\nnext\n"));
            let [Line::TooLong { head, tail, bytes: 5_000 }, Line::Whole(next)] = &got[..] else {
                panic!("chunk {chunk}: {} lines", got.len());
            };
            assert_eq!((head[0], head.len(), tail[EDGE - 1], tail.len()), (b'{', EDGE, b'}', EDGE));
            assert_eq!(next, b"next");
        }
    }

    #[test]
    fn of_a_line_without_end_only_the_edges_are_kept() {
        let mut lines = Lines::new(1_000);
        for mebibyte in 1..=100 {
            assert_eq!(all(&mut lines, &vec![b'x'; 1 << 20]), []);
            assert_eq!(lines.unfinished(), mebibyte << 20);
        }
        let Overflow { head, tail, .. } = lines.overflow.as_ref().unwrap();
        assert!(lines.line.capacity() <= 1_000 && head.len() == EDGE && tail.capacity() <= 4 * EDGE);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole() {
        let mut lines = Lines::new(4);
        assert_eq!(all(&mut lines, b"abcd\n"), [Line::Whole(b"abcd".to_vec())]);
        assert!(matches!(all(&mut lines, b"abcde\n")[..], [Line::TooLong { bytes: 5, .. }]));
    }
}
