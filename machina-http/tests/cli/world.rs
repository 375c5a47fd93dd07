//! A home directory with nothing in it but what the test puts there, and the
//! binary run in it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// How long anything may take before the test gives it up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    home: TempDir,
    /// What `egress.allow` says.
    reaches: &'static str,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// A home with the small server in it.
    pub(crate) fn new() -> Self {
        let world = Self { home: tempfile::tempdir().unwrap(), reaches: "[]" };
        world.write("server.py", include_str!("server.py"));
        world
    }

    /// The same, where services may be on this machine that are registered over HTTP.
    pub(crate) fn reaching_loopback() -> Self {
        Self { reaches: r#"["127.0.0.0/8"]"#, ..Self::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// How a host's configuration says how the small server is started.
    pub(crate) fn server(&self, args: &[&str]) -> Value {
        let script = self.path("server.py");
        let args: Vec<_> = [script.to_str().unwrap()].into_iter().chain(args.iter().copied()).collect();
        json!({"command": "python3", "args": args})
    }

    /// A host's configuration with these servers.
    pub(crate) fn hosts(&self, name: &str, servers: Value) -> String {
        let path = self.write(name, &json!({ "mcpServers": servers }).to_string());
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_machina"));
        command.args(args).current_dir(self.home.path()).env_clear();
        // The inherited PATH finds python3; nothing else of the tester's environment counts.
        command.envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
        command.env("HOME", self.home.path()).kill_on_drop(true);
        command.env("MACHINA_EGRESS__ALLOW", self.reaches);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let output = timeout(PATIENCE, self.command(args).output()).await;
        let output = output.unwrap_or_else(|_| panic!("machina {args:?} does not end")).unwrap();
        let ran = Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
        ran
    }

    /// Runs a command on the store of this home.
    pub(crate) async fn on_store(&self, args: &[&str]) -> Ran {
        self.run(&[args, &["--store", "sqlite:here.db"]].concat()).await
    }

    /// The commands that processes with this home in them were started with.
    #[cfg(target_os = "linux")]
    pub(crate) fn processes(&self) -> Vec<String> {
        let home = self.home.path().to_str().unwrap();
        let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let commands = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let commands = commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " "));
        commands.filter(|command| command.contains(home) && command.contains("server.py")).collect()
    }

    /// Asserts that no process with this home in it lives for much longer.
    pub(crate) async fn is_soon_empty(&self) {
        let empty = async {
            while !self.processes().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), empty).await.unwrap_or_else(|_| panic!("left: {:?}", self.processes()));
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn processes(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Ran {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Asserts that stdout contains each of `parts`.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stdout.contains(part), "stdout does not say {part:?}: {self:?}");
        }
        self
    }

    /// Asserts that stderr contains each of `parts`.
    #[track_caller]
    pub(crate) fn complains(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "stderr does not say {part:?}: {self:?}");
        }
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A running `machina serve`.
pub(crate) struct Served {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) url: String,
    log: PathBuf,
}

impl Served {
    /// Starts it on the store of this home, at any port, and reads its first line.
    pub(crate) async fn start(world: &World, args: &[&str]) -> Self {
        Self::start_with(world, args, |_| {}).await
    }

    /// The same, with a command that `change` has changed.
    pub(crate) async fn start_with(world: &World, args: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let fixed = ["--listen", "127.0.0.1:0", "--store", "sqlite:here.db"];
        Self::try_start(world, &[&fixed, args].concat(), change).await.unwrap_or_else(|log| panic!("{log}"))
    }

    /// Starts it at the address that one before it had. A connection that goes out may
    /// have that port for a moment.
    pub(crate) async fn start_again(
        world: &World,
        address: &str,
        args: &[&str],
        change: impl Fn(&mut Command),
    ) -> Self {
        let (args, end) = ([&["--listen", address], args].concat(), Instant::now() + Duration::from_secs(5));
        loop {
            match Self::try_start(world, &args, &change).await {
                Err(log) if log.contains("cannot listen on") && Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                started => return started.unwrap_or_else(|log| panic!("{log}")),
            }
        }
    }

    /// Where it does not listen, what it says to that.
    async fn try_start(world: &World, args: &[&str], change: impl FnOnce(&mut Command)) -> Result<Self, String> {
        let log = world.path("serve.log");
        let mut command = world.command(&[&["serve"], args].concat());
        command.stderr(std::fs::File::create(&log).unwrap());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut served = Self { child, lines, url: String::new(), log };
        let first = served.next_line().await.unwrap_or_default();
        let Some((_, url)) = first.split_once("listening on ") else {
            return Err(format!("{first}: {}", served.log()));
        };
        served.url = url.to_owned();
        Ok(served)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn next_line(&mut self) -> Option<String> {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        line.unwrap_or_else(|_| panic!("no line comes: {}", self.log())).unwrap()
    }

    /// The next line of stdout.
    pub(crate) async fn line(&mut self) -> String {
        self.next_line().await.unwrap_or_else(|| panic!("stdout has ended: {}", self.log()))
    }

    /// The lines up to the one that contains `part`.
    pub(crate) async fn until(&mut self, part: &str) -> String {
        let mut text = String::new();
        loop {
            let line = self.line().await;
            text += &format!("{line}\n");
            if line.contains(part) {
                return text;
            }
        }
    }

    pub(crate) async fn signal(&self, signal: &str) {
        signal_to(self.child.id().unwrap(), signal).await;
    }

    /// Waits for its end and returns the exit code.
    pub(crate) async fn ended(mut self) -> i32 {
        let status = timeout(PATIENCE, self.child.wait()).await;
        status.unwrap_or_else(|_| panic!("it does not end: {}", self.log())).unwrap().code().unwrap_or(-1)
    }
}

pub(crate) async fn signal_to(process: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status().await.unwrap();
    assert!(status.success());
}

/// Asserts that no line is wider than 80 columns.
#[track_caller]
pub(crate) fn is_narrow(text: &str) {
    let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:#?}");
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
