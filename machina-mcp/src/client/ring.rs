//! The last bytes that a child wrote to stderr. Refuses to grow, and hides the
//! secrets that the child was given, should it print them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::secrets::Secrets;

/// A bounded buffer of the newest bytes.
pub(crate) struct Ring {
    bytes_max: usize,
    secrets: Secrets,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// Whether older bytes were dropped: the first line is cut then.
    cut: bool,
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
        Self { bytes_max, secrets, kept: Mutex::default() }
    }

    /// Takes `new`, dropping the oldest bytes where the limit is reached.
    pub(crate) fn push(&self, new: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let excess = (kept.bytes.len() + new.len()).saturating_sub(self.bytes_max);
        kept.cut |= excess > 0;
        let old = excess.min(kept.bytes.len());
        kept.bytes.drain(..old);
        kept.bytes.extend(&new[excess - old..]);
    }

    /// All that is kept, as text, secrets masked. A first line that was cut is
    /// left out if others follow it.
    pub(crate) fn text(&self) -> String {
        let (bytes, cut) = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            (kept.bytes.iter().copied().collect::<Vec<u8>>(), kept.cut)
        };
        // The rest of a secret is no longer recognised as one.
        let rest = if cut { self.secrets.rest_at_front(&bytes) } else { 0 };
        let mut text = self.secrets.mask(String::from_utf8_lossy(&bytes[rest..]).into_owned());
        let first_line = text.find('\n').filter(|end| cut && end + 1 < text.len());
        text.drain(..first_line.map_or(0, |end| end + 1));
        text
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
        assert!(!format!("{ring:?}").contains("hunter2"));
    }

    #[test]
    fn the_rest_of_a_secret_that_was_cut_is_not_shown() {
        for secret in ["hunter2-hunter3", "hunter2\nhunter3"] {
            for kept in 1..40 {
                let ring = ring(kept, &[secret]);
                ring.push(format!("token={secret} is wrong\nsecond line\n").as_bytes());
                let text = ring.text();
                assert!(!text.contains("ter3") && !text.contains("hun"), "{kept}: {text}");
                assert!(kept < 13 || text.ends_with("second line\n"), "{kept}: {text}");
            }
        }
    }

    #[test]
    fn a_first_line_that_was_cut_is_left_out_if_others_follow() {
        let ring = ring(16, &[]);
        ring.push(b"first line\nsecond\nthird\n");
        assert_eq!(ring.text(), "second\nthird\n");
        ring.push(b"0123456789012345678");
        assert_eq!(ring.text(), "3456789012345678");
    }
}
