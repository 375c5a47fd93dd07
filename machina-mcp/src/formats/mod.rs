//! Configuration files of MCP hosts, read and written: so that a registry can
//! start from what its user already has, and hand a host what it needs.
//!
//! A format is told by its content, never by a file name. Nothing is dropped in
//! silence: what has no place in a [`ServiceSpec`] becomes a [`Note`] with its
//! path, and a bad entry is an error note that hides no other entry. This module
//! refuses to read files or the environment, and to write or show a secret:
//! placeholders stay references that a connector fills in.

mod codex;
mod detect;
mod diff;
mod endpoint;
mod entry;
mod export;
mod host_entry;
mod importer;
mod mcp_servers;
mod mcpb;
mod note;
mod opencode;
mod package;
mod placeholder;
mod render;
mod server_json;
mod server_json_export;
mod server_json_package;
mod services;
mod text;
mod vscode;
mod zed;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use machina_core::{Result, ServiceSpec};

pub use detect::Format;
pub use diff::{Difference, FieldChange, diff};
pub use export::{Client, Export, Gateway, export, export_gateway};
pub use note::{Note, Severity};
pub(crate) use server_json::import_listed;
#[cfg(test)]
pub(crate) use server_json::{EXTENSION, PUBLISHER_PROVIDED};
pub use server_json_export::server_json;
pub(crate) use server_json_export::version_of;

use importer::Importer;

/// How a file is to be read.
#[derive(Clone, Default)]
pub struct ImportOptions {
    /// Values that are put in place of `${name}` at once, such as those of
    /// `workspaceFolder`, `userHome`, `__dirname` or `user_config.directory`. A
    /// placeholder without a value here stays a reference.
    pub variables: BTreeMap<String, String>,
}

impl ImportOptions {
    /// The same with one more value.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }
}

impl fmt::Debug for ImportOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportOptions").field("variables", &self.variables.keys()).finish()
    }
}

/// What was found in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The format that the file is in.
    pub format: Format,
    /// Every service that could be read, each valid and with a name of its own.
    pub services: Vec<ServiceSpec>,
    /// What else is to be said, in the order of the file.
    pub notes: Vec<Note>,
}

impl Import {
    /// The notes about entries that could not be read.
    pub fn errors(&self) -> impl Iterator<Item = &Note> {
        self.notes.iter().filter(|note| note.severity == Severity::Error)
    }
}

/// The format of `text`.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) for text that is malformed
/// (with line and column), too long, or in no format that is known.
pub fn detect(text: &str) -> Result<Format> {
    let document = text::parse(text)?;
    Format::of(&document.root)
}

/// Reads every service out of `text`.
///
/// # Errors
/// As [`detect`]. An entry that cannot be read is no error of the whole: it is
/// among the notes, with [`Severity::Error`].
pub fn import(text: &str, options: &ImportOptions) -> Result<Import> {
    let document = text::parse(text)?;
    let format = Format::of(&document.root)?;
    let mut importer = Importer::new(format, options, document.notes);
    match format {
        Format::McpServers => mcp_servers::read(document.root, &mut importer),
        Format::VsCode => vscode::read(document.root, &mut importer),
        Format::Zed => zed::read(document.root, &mut importer),
        Format::Codex => codex::read(document.root, &mut importer),
        Format::OpenCode => opencode::read(document.root, &mut importer),
        Format::ServerJson => server_json::read(document.root, &mut importer),
        Format::Mcpb => mcpb::read(document.root, &mut importer),
        Format::Machina => services::read(document.root, &mut importer),
    }
    Ok(importer.finish())
}
