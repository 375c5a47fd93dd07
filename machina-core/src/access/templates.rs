//! Commands that the operator lets others register: a program at a fixed place, with
//! arguments that are fixed or holes of a stated type. A template says all of a
//! command: an environment or a working directory of one's own is refused. Decides
//! by the text alone and never looks at the disk.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Problem, Result};
use crate::model::{Sensitive, StdioEndpoint, from_json};

/// How long the text in a hole may be, in bytes.
const HOLE_MAX: usize = 1024;

/// A command that may be registered from outside the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandTemplate {
    /// The program, as an absolute path: a bare name would depend on a `PATH`, and a
    /// launcher such as `npx` runs anything.
    pub command: String,
    /// Its arguments, in their order; a command has exactly these.
    #[serde(default)]
    pub args: Vec<TemplateArgument>,
}

/// One argument of a [`CommandTemplate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be a text, or a table whose `hole` is `word`, `integer`, `path` or `one_of`")]
pub enum TemplateArgument {
    /// Word for word.
    Fixed(String),
    /// Whatever fits.
    Hole(Hole),
}

/// What whoever registers a command may fill in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "hole", rename_all = "snake_case", deny_unknown_fields)]
pub enum Hole {
    /// Letters, digits, `.`, `_` and `-`, the first of them a letter or a digit: never
    /// an option.
    Word {},
    /// A whole number.
    Integer {
        /// The least one.
        least: i64,
        /// The greatest one.
        most: i64,
    },
    /// An absolute path that is `under` or lies in it, without `.` and `..`. Links on
    /// the disk are not looked at: let nobody make them there.
    Path {
        /// An absolute path.
        under: String,
    },
    /// One of these words.
    OneOf {
        /// At least one.
        values: Vec<String>,
    },
}

impl CommandTemplate {
    /// Reads a template from a JSON value.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the field.
    pub fn from_value(value: Value) -> Result<Self> {
        let template: Self = from_json(value)?;
        let mut problems = Vec::new();
        template.check("", &mut problems);
        if problems.is_empty() { Ok(template) } else { Err(Error::invalid_fields(problems)) }
    }

    /// `field` is the place of the template, with a dot at its end.
    pub(crate) fn check(&self, field: &str, problems: &mut Vec<Problem>) {
        let mut wrong = |name: &str, detail: &str| {
            problems.push(Problem { field: format!("{field}{name}"), detail: detail.to_owned() });
        };
        if !is_plain_path(&self.command) {
            wrong("command", "must be an absolute path without `.` and `..`, such as `/usr/bin/disk-server`");
        }
        for (index, argument) in self.args.iter().enumerate() {
            let TemplateArgument::Hole(hole) = argument else { continue };
            match hole {
                Hole::Integer { least, most } if least > most => {
                    wrong(&format!("args[{index}].least"), "must not be greater than `most`");
                }
                Hole::Path { under } if !is_plain_path(under) => {
                    wrong(&format!("args[{index}].under"), "must be an absolute path without `.` and `..`");
                }
                Hole::OneOf { values } if values.is_empty() => {
                    wrong(&format!("args[{index}].values"), "must have at least one word");
                }
                _ => {}
            }
        }
    }

    /// Whether it makes this command.
    pub(super) fn makes(&self, endpoint: &StdioEndpoint) -> bool {
        let fits = |(argument, given): (&TemplateArgument, &Sensitive)| argument.takes(given.expose());
        endpoint.command == self.command
            && endpoint.cwd.is_none()
            && endpoint.env.is_empty()
            && endpoint.args.len() == self.args.len()
            && self.args.iter().zip(&endpoint.args).all(fits)
    }
}

impl TemplateArgument {
    fn takes(&self, given: &str) -> bool {
        match self {
            Self::Fixed(text) => text == given,
            Self::Hole(hole) => given.len() <= HOLE_MAX && hole.takes(given),
        }
    }
}

impl Hole {
    fn takes(&self, given: &str) -> bool {
        match self {
            Self::Word {} => {
                let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                given.starts_with(|c: char| c.is_ascii_alphanumeric()) && given.chars().all(inner)
            }
            Self::Integer { least, most } => given
                .parse::<i64>()
                .is_ok_and(|number| (*least..=*most).contains(&number) && number.to_string() == given),
            Self::Path { under } => is_plain_path(given) && Path::new(given).starts_with(under),
            Self::OneOf { values } => values.iter().any(|value| value == given),
        }
    }
}

/// An absolute path as it is written out in full, in which nothing is replaced.
fn is_plain_path(path: &str) -> bool {
    let mut components = Path::new(path).components();
    let in_full = components.next() == Some(Component::RootDir)
        && components.all(|component| matches!(component, Component::Normal(_)))
        // `components` passes over these.
        && !path.split('/').any(|name| name == ".");
    in_full && !path.contains(|c: char| c == '$' || c.is_control())
}

#[cfg(test)]
#[path = "templates_tests.rs"]
mod tests;
