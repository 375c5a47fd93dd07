//! Values with the place that each comes from, laid over one another.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use machina_core::Problem;
use serde_json::{Map, Value};

use super::keys::{self, Key};
use super::{Settings, problems_of_records};
use crate::paths::Variables;

/// The one setting that is a secret.
const JOB_SECRET: &str = "server.job_secret";

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File { path: PathBuf, line: Option<usize> },
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Everything that was set, by key; the last one set counts. Its `Debug` shows
/// no value: services have secrets.
#[derive(Default)]
pub(super) struct Layers {
    set: BTreeMap<String, (Value, Source)>,
    /// What was set and has no key: reported, never passed over.
    unknown: Vec<(String, Source)>,
}

impl Layers {
    /// Sets `path`, or what lies below it if it is a section.
    pub(super) fn set(&mut self, path: &str, value: Value, source: Source) {
        if keys::find(path).is_some() {
            self.set.insert(path.to_owned(), (value, source));
        } else {
            self.unknown.push((path.to_owned(), source));
        }
    }

    /// Takes the variables `MACHINA_SECTION__KEY`. Each is read as a TOML value,
    /// or as text where it is none.
    pub(super) fn environment(&mut self, variables: &Variables) {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix("MACHINA_") else { continue };
            if !rest.contains("__") {
                continue;
            }
            let path = rest.to_lowercase().replace("__", ".");
            let value = toml::from_str::<Map<String, Value>>(&format!("value = {text}"));
            let value = value.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
            // A secret of digits is a text too.
            let value = value.filter(|value| path != JOB_SECRET || value.is_string());
            self.set(&path, value.unwrap_or_else(|| text.clone().into()), Source::Variable(name.clone()));
        }
    }

    pub(super) fn value(&self, path: &str) -> Value {
        self.set.get(path).map(|(value, _)| value.clone()).unwrap_or_default()
    }

    pub(super) fn source(&self, path: &str) -> &Source {
        self.set.get(path).map_or(&Source::Default, |(_, source)| source)
    }

    /// Checks every value by itself, so that each wrong one is named; takes out
    /// those that are, so that the others can be looked at together.
    pub(super) fn take_wrong(&mut self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.unknown.iter().map(|(path, source)| unknown(path, source)).collect();
        self.set.retain(|path, (value, source)| {
            let wrong = wrong(path, value, source);
            problems.extend_from_slice(&wrong);
            wrong.is_empty()
        });
        problems
    }

    /// The settings as a whole.
    pub(super) fn settings(&self) -> serde_json::Result<Settings> {
        let mut tree = Value::default();
        for (path, (value, _)) in &self.set {
            put(&mut tree, path, value.clone());
        }
        serde_json::from_value(if tree.is_null() { Map::new().into() } else { tree })
    }

    /// `problem` with the place of its field.
    pub(super) fn placed(&self, problem: Problem) -> Problem {
        let source = self.source(problem.field.split('[').next().unwrap_or_default());
        Problem { detail: at_place(&problem.detail, source), ..problem }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.set.iter().map(|(path, (_, source))| (path, source))).finish()
    }
}

/// What is wrong with one value by itself.
fn wrong(path: &str, value: &Value, source: &Source) -> Vec<Problem> {
    if let Some(found) = problems_of_records(path, value) {
        return found.into_iter().map(|p| Problem { detail: at_place(&p.detail, source), ..p }).collect();
    }
    let mut tree = Value::default();
    put(&mut tree, path, value.clone());
    match (serde_json::from_value::<Settings>(tree), keys::find(path)) {
        (Err(error), Some(key)) => {
            let detail = format!("{error}; {}", key.expected());
            vec![Problem { field: path.to_owned(), detail: at_place(&detail, source) }]
        }
        _ => Vec::new(),
    }
}

fn at_place(detail: &str, source: &Source) -> String {
    format!("{detail} ({source})")
}

fn unknown(path: &str, source: &Source) -> Problem {
    let near = keys::near(path).map(|key| format!("; did you mean `{}`?", key.path)).unwrap_or_default();
    Problem { field: path.to_owned(), detail: at_place(&format!("is no setting{near}"), source) }
}

/// The value at a dotted path.
pub(super) fn at<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(tree, |value, name| value.get(name))
}

fn put(tree: &mut Value, path: &str, value: Value) {
    let mut place = tree;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Map::new().into();
        }
        place = &mut place[name];
    }
    *place = value;
}

/// The names of all keys of `Settings::default()`, in order.
#[cfg(test)]
pub(super) fn default_paths() -> Vec<String> {
    fn walk(prefix: &str, value: &Value, paths: &mut Vec<String>) {
        let Some(object) = value.as_object() else { return paths.push(prefix.to_owned()) };
        for (name, value) in object {
            walk(&if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") }, value, paths);
        }
    }
    let mut paths = Vec::new();
    walk("", &serde_json::to_value(Settings::default()).unwrap(), &mut paths);
    paths
}

impl Key {
    /// What would be right.
    fn expected(&self) -> String {
        let default = self.default();
        match (self.choices, default) {
            ([], Value::Null) => format!("it is: {}", self.doc),
            ([], default) => format!("by default it is {default}"),
            (choices, _) => format!("it is one of {}", choices.join(", ")),
        }
    }
}
