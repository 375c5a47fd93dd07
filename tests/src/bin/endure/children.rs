//! Children that are trees: a shell, and under it a server. All of them carry a
//! mark, so that whatever becomes of them, they are found, and killed at the end.

use std::path::PathBuf;

use machina_core::StdioEndpoint;
use machina_tests::{Process, farm_binary};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const SCRIPT: &str = include_str!("server.mjs");
/// Runs what it is given as a child of its own, and does not replace itself by it.
const SHELL: [&str; 3] = ["-c", "\"$@\"; exit $?", "sh"];

/// The kind of server at the leaves.
#[derive(Debug)]
pub(crate) enum Leaf {
    /// Node, with a script in this directory.
    Node(TempDir),
    /// The farm, which starts in no time.
    Farm,
}

/// The processes of one run.
#[derive(Debug)]
pub(crate) struct Children {
    mark: String,
    leaf: Leaf,
}

impl Children {
    /// Those of the row `row`, with node at the leaves if `node`.
    pub(crate) fn of(row: &str, node: bool) -> Self {
        let leaf = if node { Leaf::Node(script()) } else { Leaf::Farm };
        Self { mark: format!("endure-{row}-{}", std::process::id()), leaf }
    }

    /// The argument that all of them have.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// What the leaves are.
    pub(crate) fn leaf(&self) -> &'static str {
        if matches!(self.leaf, Leaf::Node(_)) { "node" } else { "farm" }
    }

    fn arguments(&self) -> Vec<String> {
        let farm = || farm_binary().to_string_lossy().into_owned();
        let own = match &self.leaf {
            Leaf::Node(directory) => {
                vec!["node".to_owned(), script_in(directory).to_string_lossy().into_owned(), self.mark.clone()]
            }
            Leaf::Farm => vec![farm(), "stdio".to_owned(), "--mark".to_owned(), self.mark.clone()],
        };
        SHELL.into_iter().map(str::to_owned).chain(own).collect()
    }

    /// By what Machina starts a tree.
    pub(crate) fn endpoint(&self) -> StdioEndpoint {
        let arguments = self.arguments();
        StdioEndpoint::new("sh", arguments.iter().map(String::as_str))
    }

    /// The same as the entry of a host's configuration file.
    pub(crate) fn entry(&self) -> Value {
        json!({"command": "sh", "args": self.arguments()})
    }

    /// All that are there, zombies left out.
    pub(crate) fn alive(&self) -> Vec<Process> {
        Process::with_argument(&self.mark).into_iter().filter(|process| process.is_alive()).collect()
    }
}

fn script() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::write(script_in(&directory), SCRIPT).expect("a file can be written into a new directory");
    directory
}

fn script_in(directory: &TempDir) -> PathBuf {
    directory.path().join("server.mjs")
}

impl Drop for Children {
    fn drop(&mut self) {
        for process in Process::with_argument(&self.mark) {
            process.signal(Signal::KILL);
        }
    }
}
