//! What the fixture server executed, one line per execution: the truth that
//! tests compare the answers of Machina with. A line is in the file before the
//! answer is on its way, so not even `kill -9` can hide an execution.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalEvent {
    /// The tool ran.
    Executed,
    /// The tool was running when it was cancelled.
    Cancelled,
    /// The process started; no tool is concerned.
    Started,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// What happened.
    pub event: JournalEvent,
    /// The tool; empty if none is concerned.
    pub tool: String,
    /// The argument `id` of the call, where it had one.
    pub id: Option<String>,
    /// The process that ran it.
    pub pid: u32,
}

/// A file of [`JournalEntry`] lines; several fixtures may share one.
#[derive(Debug, Clone)]
pub struct JournalFile(PathBuf);

impl JournalFile {
    /// The journal in the file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Adds one line by a single append, which concurrent writers cannot tear.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, entry: &JournalEntry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        OpenOptions::new().create(true).append(true).open(&self.0)?.write_all(&line)
    }

    /// Every line so far; none if the file does not exist.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is not an entry.
    pub fn read(&self) -> io::Result<Vec<JournalEntry>> {
        let text = match std::fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
    }

    /// How many lines say `event`.
    ///
    /// # Errors
    /// As [`JournalFile::read`].
    pub fn count(&self, event: JournalEvent) -> io::Result<usize> {
        Ok(self.read()?.iter().filter(|entry| entry.event == event).count())
    }

    /// How often each call of `tool` was executed, by its argument `id`.
    ///
    /// # Errors
    /// As [`JournalFile::read`].
    pub fn executions(&self, tool: &str) -> io::Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for entry in self.read()? {
            if entry.event == JournalEvent::Executed && entry.tool == tool {
                *counts.entry(entry.id.unwrap_or_default()).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_executions_by_id_and_leaves_out_the_cancelled() {
        let directory = tempfile::tempdir().unwrap();
        let journal = JournalFile::new(directory.path().join("journal"));
        assert_eq!(journal.read().unwrap(), []);
        let entry = |event, id: &str| JournalEntry { event, tool: "t".into(), id: Some(id.into()), pid: 1 };
        for line in [
            entry(JournalEvent::Executed, "a"),
            entry(JournalEvent::Executed, "a"),
            entry(JournalEvent::Cancelled, "b"),
            entry(JournalEvent::Executed, "c"),
        ] {
            journal.append(&line).unwrap();
        }
        let expected = BTreeMap::from([("a".to_owned(), 2), ("c".to_owned(), 1)]);
        assert_eq!(journal.executions("t").unwrap(), expected);
        assert_eq!(journal.count(JournalEvent::Cancelled).unwrap(), 1);
        assert!(journal.executions("other").unwrap().is_empty());
    }

    #[test]
    fn a_torn_line_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        std::fs::write(&path, "{\"event\":").unwrap();
        assert!(JournalFile::new(path).read().is_err());
    }
}
