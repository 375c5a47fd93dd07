//! What an import or an export has to say about one place of a file. A note
//! holds names and reasons, never the value of an environment variable, a
//! header or an argument.

use std::fmt;

use serde::Serialize;

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something was carried over in another form.
    Info,
    /// Something was not carried over, or needs the user's hand.
    Warning,
    /// An entry could not be read or written, and was left out.
    Error,
}

impl Severity {
    /// The word in JSON and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One remark about one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// Where: a path such as `mcpServers.time.args[1]`; `$` is the whole.
    pub path: String,
    /// What was found, and what would be right.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity.as_str(), self.path, self.message)
    }
}

/// Notes in the making.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    pub(super) fn info(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(Severity::Info, path.into(), message.into());
    }

    pub(super) fn warn(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(Severity::Warning, path.into(), message.into());
    }

    pub(super) fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(Severity::Error, path.into(), message.into());
    }

    fn push(&mut self, severity: Severity, path: String, message: String) {
        let path = if path.is_empty() { "$".to_owned() } else { path };
        self.0.push(Note { severity, path, message });
    }

    /// How many errors there are so far.
    pub(super) fn errors(&self) -> usize {
        self.0.iter().filter(|note| note.severity == Severity::Error).count()
    }

    pub(super) fn into_vec(self) -> Vec<Note> {
        self.0
    }
}

/// The path of the field `key` of what is at `path`.
pub(super) fn field(path: &str, key: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
    if key.is_empty() || !key.chars().all(simple) {
        let shown: String = key.chars().take(100).collect();
        return format!("{path}[\"{}\"]", shown.escape_debug());
    }
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The path of the element `index` of what is at `path`.
pub(super) fn element(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}
