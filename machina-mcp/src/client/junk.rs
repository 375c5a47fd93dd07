//! Lines on a child's stdout that are no messages. A few are passed over: many programs greet. Refuses to overlook
//! a program that goes on mixing them with its messages: the next probe says so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machina_core::Error;

/// How many in a row are too many.
const ROW_MAX: u64 = 10;

/// The count of one child. Only the reader of its stdout adds.
#[derive(Debug, Default)]
pub(super) struct Junk {
    all: AtomicU64,
    row: AtomicU64,
    /// Whether a message came before: what comes before the first is a greeting.
    spoken: AtomicBool,
    /// The longest row since the last complaint, if it was too long.
    complaint: AtomicU64,
}

impl Junk {
    /// Counts a line; returns how many there were before.
    pub(super) fn add(&self) -> u64 {
        if self.spoken.load(Ordering::Relaxed) {
            let row = self.row.fetch_add(1, Ordering::Relaxed) + 1;
            if row >= ROW_MAX {
                self.complaint.fetch_max(row, Ordering::Relaxed);
            }
        }
        self.all.fetch_add(1, Ordering::Relaxed)
    }

    /// A message came: the row is over.
    pub(super) fn end_row(&self) {
        self.spoken.store(true, Ordering::Relaxed);
        self.row.store(0, Ordering::Relaxed);
    }

    /// What is to be said of the lines since the last time: soft evidence against the child.
    pub(super) fn complaint(&self) -> Option<Error> {
        let row = self.complaint.swap(0, Ordering::Relaxed);
        let all = self.all.load(Ordering::Relaxed);
        (row > 0).then(|| {
            Error::rejected(format!(
                "the process wrote {row} lines in a row to stdout that are no messages ({all} in all); a server logs \
                 to stderr"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_and_single_lines_are_passed_over() {
        let junk = Junk::default();
        (0..100).for_each(|count| assert_eq!(junk.add(), count));
        for _ in 0..100 {
            junk.end_row();
            (1..ROW_MAX).for_each(|_| _ = junk.add());
        }
        assert!(junk.complaint().is_none());
    }

    #[test]
    fn a_long_row_is_complained_of_once() {
        let junk = Junk::default();
        junk.end_row();
        (0..ROW_MAX + 2).for_each(|_| _ = junk.add());
        junk.end_row();
        let error = junk.complaint().unwrap();
        assert!(error.message().contains("12 lines in a row") && !error.context().hard, "{error}");
        assert!(junk.complaint().is_none());
    }
}
