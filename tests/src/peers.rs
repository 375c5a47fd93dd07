//! Programs that others wrote to test MCP with: conformance suites, the
//! inspector, clients. `python3 tests/peers/install.py` installs them.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::workspace_root;

/// How long one of them may run.
const RUN_MAX: Duration = Duration::from_secs(180);

/// Where they are.
#[derive(Debug, Clone, Deserialize)]
pub struct Peers {
    node: PathBuf,
    python: PathBuf,
    npm: PathBuf,
    scripts: Scripts,
}

#[derive(Debug, Clone, Deserialize)]
struct Scripts {
    conformance_0_1: PathBuf,
    conformance_0_2: PathBuf,
    inspector: PathBuf,
}

/// What one of them printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Whether it ended with 0.
    pub good: bool,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Ran {
    /// Stdout as JSON.
    ///
    /// # Panics
    /// If it is none, or the program failed; the message holds what it printed.
    #[must_use]
    pub fn json(&self) -> Value {
        assert!(self.good, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

impl Peers {
    /// Those that are installed in the target directory.
    ///
    /// # Panics
    /// If they are not; the message says how to install them.
    #[must_use]
    pub fn installed() -> Self {
        let path = workspace_root().join("target/peers/peers.json");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run python3 tests/peers/install.py", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The version of an npm package.
    ///
    /// # Panics
    /// If there is no such package.
    #[must_use]
    pub fn version(&self, package: &str) -> String {
        let path = self.npm.join("node_modules").join(package).join("package.json");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run python3 tests/peers/install.py", path.display()));
        let manifest: Value = serde_json::from_str(&text).expect("a manifest of npm is JSON");
        manifest["version"].as_str().expect("a manifest of npm has a version").to_owned()
    }

    /// Runs the conformance suite of the package `conformance-0.1` or `conformance-0.2`.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn conformance(&self, package: &str, args: &[&str]) -> Ran {
        let script = match package {
            "conformance-0.1" => &self.scripts.conformance_0_1,
            _ => &self.scripts.conformance_0_2,
        };
        self.run(&self.node, script, args).await
    }

    /// Runs the command line of the inspector.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn inspector(&self, args: &[&str]) -> Ran {
        let args: Vec<&str> = std::iter::once("--cli").chain(args.iter().copied()).collect();
        self.run(&self.node, &self.scripts.inspector, &args).await
    }

    /// Runs one of the committed clients, by its language.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn client(&self, language: &str, args: &[&str]) -> Ran {
        let scripts = workspace_root().join("tests/peers");
        match language {
            "python" => self.run(&self.python, &scripts.join("client.py"), args).await,
            _ => self.run(&self.node, &scripts.join("client.mjs"), args).await,
        }
    }

    async fn run(&self, program: &Path, script: &Path, args: &[&str]) -> Ran {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = Command::new(program);
        command.arg(script).args(args).current_dir(&self.npm).env("HOME", home.path()).env("NO_COLOR", "1");
        // A parent that measures coverage or debugs Node would speak into its output.
        command.env_remove(OsStr::new("NODE_OPTIONS")).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(RUN_MAX, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("{} {args:?} ran for {RUN_MAX:?}", script.display()));
        let output = output.unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { good: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// Prints a line that is seen although the test passes, whose output cargo
/// would otherwise keep to itself.
pub fn closing_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
