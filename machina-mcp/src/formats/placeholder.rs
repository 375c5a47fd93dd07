//! The placeholders of every host, rewritten to those that a connector fills in:
//! `${NAME}`, `${env:NAME}` and `${NAME:-default}`. Refuses to look a variable
//! up in the environment: a reference stays one.

use std::collections::BTreeMap;

use super::ImportOptions;
use super::note::Notes;

/// How a host writes a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// `${…}`.
    Dollar,
    /// `${…}` and `$NAME`, as in Gemini CLI.
    BareDollar,
    /// `{env:NAME}`, as in opencode.
    Braces,
}

/// A value that a host asks its user for.
#[derive(Debug, Clone, Default)]
pub(super) struct Input {
    /// What applies when the user gives nothing; never that of a password.
    pub(super) default: Option<String>,
}

#[derive(Debug)]
pub(super) struct Placeholders<'a> {
    pub(super) syntax: Syntax,
    pub(super) inputs: BTreeMap<String, Input>,
    options: &'a ImportOptions,
}

/// Names that a host itself fills in: no one else can.
const OF_HOSTS: [&str; 14] = [
    "workspaceFolder",
    "workspaceFolderBasename",
    "workspaceRoot",
    "userHome",
    "cwd",
    "execPath",
    "file",
    "fileDirname",
    "extensionPath",
    "workspacePath",
    "__dirname",
    "DESKTOP",
    "DOCUMENTS",
    "DOWNLOADS",
];

impl<'a> Placeholders<'a> {
    pub(super) fn new(options: &'a ImportOptions) -> Self {
        Self { syntax: Syntax::Dollar, inputs: BTreeMap::new(), options }
    }

    /// Whether the user gave a value for `name`.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.options.variables.contains_key(name)
    }

    /// `text`, which stands at `path`, with its placeholders rewritten.
    pub(super) fn rewrite(&self, path: &str, text: &str, notes: &mut Notes) -> String {
        if self.syntax == Syntax::Dollar && is_bare_reference(text) {
            let message = "looks like a reference to an environment variable and is kept as plain text; write ${NAME} \
                           to have it filled in";
            notes.warn(path, message);
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(['$', '{']) {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            let (replacement, length) = self.at_start(path, rest, notes);
            out.push_str(&replacement);
            rest = &rest[length..];
        }
        out.push_str(rest);
        out
    }

    /// What replaces the placeholder that `rest` begins with, and its length in
    /// `rest`; a `$` or `{` that begins none is replaced by itself.
    fn at_start(&self, path: &str, rest: &str, notes: &mut Notes) -> (String, usize) {
        if let Some(body) = rest.strip_prefix("${")
            && let Some(length) = body.find('}')
        {
            let whole = &rest[..length + 3];
            let replaced = self.dollar(path, &body[..length], notes);
            return (replaced.unwrap_or_else(|| whole.to_owned()), whole.len());
        }
        if self.syntax == Syntax::Braces
            && let Some(body) = rest.strip_prefix('{')
            && let Some(length) = body.find('}')
        {
            let whole = &rest[..length + 2];
            return (braces(path, &body[..length], notes).unwrap_or_else(|| whole.to_owned()), whole.len());
        }
        if self.syntax == Syntax::BareDollar
            && let Some(body) = rest.strip_prefix('$')
            && body.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        {
            let length = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
            let name = &body[..length];
            let replaced = self.dollar(path, name, notes);
            return (replaced.unwrap_or_else(|| format!("${{{name}}}")), length + 1);
        }
        (rest[..1].to_owned(), 1)
    }

    /// What replaces `${inner}`; `None` keeps it.
    fn dollar(&self, path: &str, inner: &str, notes: &mut Notes) -> Option<String> {
        let name = inner.split_once(":-").map_or(inner, |(name, _)| name);
        if let Some(value) = self.options.variables.get(name) {
            return Some(value.clone());
        }
        if name == "/" || name == "pathSeparator" {
            return Some(std::path::MAIN_SEPARATOR_STR.to_owned());
        }
        if let Some(id) = name.strip_prefix("input:").or_else(|| name.strip_prefix("user_config.")) {
            return Some(self.input(path, id, notes));
        }
        match name.split_once(':') {
            Some(("env", variable)) if !is_name(variable) => {
                notes.warn(
                    path,
                    format!("`{}` is not the name of a variable that can be filled in", variable.escape_debug()),
                );
            }
            Some((kind, _)) if kind != "env" && is_name(kind) => {
                let message =
                    format!("the placeholder ${{{}}} is known to its host only: write the value", shown(name));
                notes.warn(path, message);
            }
            _ if OF_HOSTS.contains(&name) => {
                let message = format!(
                    "${{{name}}} is filled in by its host only: give its value when importing, or set \
                                       the environment variable {name}"
                );
                notes.warn(path, message);
            }
            _ => {}
        }
        None
    }

    fn input(&self, path: &str, id: &str, notes: &mut Notes) -> String {
        let name = variable_name(id);
        let Some(input) = self.inputs.get(id) else {
            let message = format!("the input `{}` is not declared: set the environment variable {name}", shown(id));
            notes.warn(path, message);
            return reference(&name, None);
        };
        reference(&name, input.default.as_deref())
    }
}

/// What replaces `{inner}` in the configuration of opencode; `None` keeps it.
fn braces(path: &str, inner: &str, notes: &mut Notes) -> Option<String> {
    let (kind, name) = inner.split_once(':')?;
    match kind {
        "env" if is_name(name) => return Some(reference(name, None)),
        "env" => notes.warn(path, format!("`{}` is not the name of an environment variable", shown(name))),
        "file" => notes.warn(path, "a value from a file is not read: use {env:NAME}"),
        _ => {}
    }
    None
}

/// Whether a placeholder can hold `default`.
pub(super) fn can_be_default(default: &str) -> bool {
    !default.contains(['}', '{', '$'])
}

/// A reference to the environment variable `name`. A default that a placeholder
/// cannot hold is left out.
pub(super) fn reference(name: &str, default: Option<&str>) -> String {
    match default.filter(|default| can_be_default(default)) {
        Some(default) => format!("${{env:{name}:-{default}}}"),
        None => format!("${{env:{name}}}"),
    }
}

/// The environment variable that stands for the input `id`: `api-key` → `API_KEY`.
pub(super) fn variable_name(id: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = id.trim_matches(|c: char| !c.is_ascii_alphanumeric()).chars().map(upper).collect();
    match name.chars().next() {
        None => "INPUT".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("_{name}"),
        Some(_) => name,
    }
}

pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether the whole of `text` is `$NAME` in capitals.
fn is_bare_reference(text: &str) -> bool {
    text.strip_prefix('$')
        .is_some_and(|name| is_name(name) && name.len() > 2 && !name.contains(|c: char| c.is_ascii_lowercase()))
}

fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}
