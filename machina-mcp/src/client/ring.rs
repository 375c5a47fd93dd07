//! The last bytes that a child wrote to stderr. Refuses to grow, and hides the
//! secrets that the child was given, should it print them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// A bounded buffer of the newest bytes.
pub(crate) struct Ring {
    bytes_max: usize,
    secrets: Secrets,
    bytes: Mutex<VecDeque<u8>>,
}

/// Texts that must never be shown. Its `Debug` shows how many, not which.
#[derive(Clone)]
pub(crate) struct Secrets(Vec<String>);

/// Shorter texts are not worth hiding: they would blank out ordinary words.
const SECRET_LEN_MIN: usize = 6;

impl Secrets {
    /// Hides those of `texts` that are long enough to be told from ordinary text.
    pub(crate) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let mut texts: Vec<_> = texts.into_iter().filter(|t| t.len() >= SECRET_LEN_MIN).collect();
        texts.sort_by_key(|t| std::cmp::Reverse(t.len()));
        Self(texts)
    }

    /// `text` with every secret masked.
    pub(crate) fn mask(&self, mut text: String) -> String {
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "********");
            }
        }
        text
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// Shows none of the text.
impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring of at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize, secrets: Secrets) -> Self {
        Self { bytes_max, secrets, bytes: Mutex::default() }
    }

    /// Takes `new`, dropping the oldest bytes where the limit is reached.
    pub(crate) fn push(&self, new: &[u8]) {
        let new = &new[new.len().saturating_sub(self.bytes_max)..];
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let excess = (bytes.len() + new.len()).saturating_sub(self.bytes_max);
        bytes.drain(..excess);
        bytes.extend(new);
    }

    /// All that is kept, as text, secrets masked.
    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        self.secrets.mask(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last `lines` lines, within `chars_max` characters; `None` if nothing was written.
    pub(crate) fn tail(&self, lines: usize, chars_max: usize) -> Option<String> {
        let text = self.text();
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let start = text.rmatch_indices('\n').nth(lines.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
        let tail = &text[start..];
        let skip = tail.chars().count().saturating_sub(chars_max);
        Some(tail.chars().skip(skip).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(bytes_max: usize, secrets: &[&str]) -> Ring {
        Ring::new(bytes_max, Secrets::new(secrets.iter().map(ToString::to_string)))
    }

    #[test]
    fn keeps_the_newest_bytes() {
        let ring = ring(8, &[]);
        ring.push(b"abcdef");
        ring.push(b"ghij");
        assert_eq!(ring.text(), "cdefghij");
        ring.push(b"0123456789");
        assert_eq!(ring.text(), "23456789");
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let ring = ring(1_000, &[]);
        assert_eq!(ring.tail(2, 100), None);
        ring.push(b"one\ntwo\nthree\n");
        assert_eq!(ring.tail(2, 100).as_deref(), Some("two\nthree"));
        assert_eq!(ring.tail(9, 100).as_deref(), Some("one\ntwo\nthree"));
        assert_eq!(ring.tail(2, 5).as_deref(), Some("three"));
    }

    #[test]
    fn a_secret_that_the_child_prints_is_masked() {
        let ring = ring(1_000, &["hunter2-hunter2", "ab"]);
        ring.push(b"token=hunter2-hunter2 ab");
        assert_eq!(ring.text(), "token=******** ab");
        assert!(!format!("{:?}", Secrets::new(["hunter2-hunter2".to_owned()])).contains("hunter2"));
    }
}
