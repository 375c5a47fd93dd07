//! A child process in a process group of its own, and the end of the whole group. Refuses to involve a shell, and
//! never leaves the group behind: if the owner is dropped for whatever reason, the group is killed; if this process
//! is killed itself, the shepherd does it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use machina_core::{Error, Phase, Result};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::config::StdioConfig;
use super::group::Group;
use super::isolation::Isolation;
use super::shepherd::Shepherd;
use super::shepherd_program::ShepherdProgram;
use super::spawner;

/// How long the system may take to end a group that was killed.
const AFTER_KILL: Duration = Duration::from_secs(3);

/// What is to be started: everything resolved, nothing left to look up but the program.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: Option<PathBuf>,
}

/// What a child is started under.
#[derive(Debug, Clone)]
pub(crate) struct Custody {
    isolation: Isolation,
    shepherd: Option<Arc<Shepherd>>,
}

impl Custody {
    pub(crate) fn new(config: &StdioConfig) -> Self {
        let shepherd = match &config.shepherd {
            ShepherdProgram::Path(program) => Some(Arc::new(Shepherd::new(program.clone()))),
            ShepherdProgram::Auto | ShepherdProgram::Off => None,
        };
        Self { isolation: Isolation::new(config), shepherd }
    }
}

/// How long each step of a stop may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From the close of stdin to SIGTERM.
    pub(crate) after_eof: Duration,
    /// From SIGTERM to SIGKILL.
    pub(crate) after_term: Duration,
}

impl Patience {
    /// No patience: SIGKILL at once.
    pub(crate) const NONE: Self = Self { after_eof: Duration::ZERO, after_term: Duration::ZERO };
}

/// A running child and its process group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Owned,
}

/// The standard streams of a child.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// A process group that dies with its owner.
#[derive(Debug)]
struct Owned {
    /// `None` once it was killed.
    group: Option<Group>,
    shepherd: Option<Arc<Shepherd>>,
}

impl Owned {
    fn new(group: Option<Group>, shepherd: Option<Arc<Shepherd>>) -> Self {
        if let (Some(group), Some(shepherd)) = (group, &shepherd) {
            shepherd.tend(group);
        }
        Self { group, shepherd }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            group.signal(signal);
        }
    }

    /// Kills what is left and forgets the number, which may then be used anew.
    fn end(&mut self) {
        self.signal(Signal::KILL);
        if let Some(group) = self.group.take()
            && let Some(shepherd) = &self.shepherd
        {
            shepherd.release(group);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.end();
    }
}

impl Process {
    /// Starts `program` under `custody`. If the future is dropped, nothing is started, or it is killed again.
    ///
    /// # Errors
    /// [`machina_core::ErrorKind::Unreachable`] with phase `not_sent`; hard
    /// unless the system was merely short of processes, files or memory.
    pub(crate) async fn start(program: &Program, custody: &Custody) -> Result<(Self, Streams)> {
        let (program, custody, runtime) = (program.clone(), custody.clone(), Handle::current());
        let start = move || {
            let _runtime = runtime.enter();
            Self::start_here(&program, custody)
        };
        spawner::run(start).await?
    }

    fn start_here(program: &Program, custody: Custody) -> Result<(Self, Streams)> {
        let path = find(program)?;
        if let Some(cwd) = program.cwd.as_deref().filter(|cwd| !cwd.is_dir()) {
            return Err(not_started(format!("the working directory {} does not exist", cwd.display())));
        }
        let mut command = Command::new(path);
        command.args(&program.args).env_clear().envs(&program.env);
        if let Some(cwd) = &program.cwd {
            command.current_dir(cwd);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        custody.isolation.apply_to(command.as_std_mut());
        let mut child = command.spawn().map_err(|error| {
            let scarce = [Errno::AGAIN, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
            let passing = Errno::from_io_error(&error).is_some_and(|errno| scarce.contains(&errno));
            not_started(format!("could not start `{}`: {error}", program.command)).with(|c| c.hard = !passing)
        })?;
        let group = Owned::new(child.id().and_then(Group::led_by), custody.shepherd);
        let streams = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((stdin, stdout), stderr) = streams.ok_or_else(|| Error::internal("a child has no standard streams"))?;
        Ok((Self { child, group }, Streams { stdin, stdout, stderr }))
    }

    /// The id of the child, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until the child has ended by itself, then kills what it left behind.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group.end();
        Ok(status)
    }

    /// Ends the child, whose stdin is closed already: waits, SIGTERM, waits, SIGKILL.
    /// When this returns the child is reaped and its whole group killed.
    ///
    /// # Errors
    /// Of the system; `TimedOut` if the child was killed and the system does not end it (it may hang in a driver).
    pub(crate) async fn stop(&mut self, patience: Patience) -> io::Result<ExitStatus> {
        if let Ok(status) = timeout(patience.after_eof, self.ended()).await {
            return status;
        }
        if !patience.after_term.is_zero() {
            self.group.signal(Signal::TERM);
            if let Ok(status) = timeout(patience.after_term, self.ended()).await {
                return status;
            }
        }
        self.group.signal(Signal::KILL);
        timeout(AFTER_KILL, self.ended()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The file to execute: a path as it is, a bare name as found on the child's `PATH`.
fn find(program: &Program) -> Result<PathBuf> {
    let name = program.command.as_str();
    if name.contains('/') {
        let base = program.cwd.as_deref().unwrap_or(Path::new(""));
        let path = base.join(name);
        return match executable(&path) {
            true => Ok(path),
            false => Err(not_started(format!("command `{name}` does not exist or may not be executed"))),
        };
    }
    let path = program.env.get("PATH").map_or("", String::as_str);
    let directories = path.split(':').filter(|directory| !directory.is_empty()).map(Path::new);
    directories.map(|directory| directory.join(name)).find(|path| executable(path)).ok_or_else(|| {
        let hint = launcher_hint(name).map(|hint| format!("; install {hint}")).unwrap_or_default();
        not_started(format!("command `{name}` not found on PATH{hint}"))
    })
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What brings a well-known launcher.
fn launcher_hint(command: &str) -> Option<&'static str> {
    Some(match command {
        "uv" | "uvx" => "uv (https://docs.astral.sh/uv)",
        "npx" | "npm" | "node" => "Node.js (https://nodejs.org)",
        "bun" | "bunx" => "Bun (https://bun.sh)",
        "deno" => "Deno (https://deno.com)",
        "docker" => "Docker (https://docs.docker.com/get-docker)",
        "podman" => "Podman (https://podman.io)",
        "python" | "python3" => "Python (https://www.python.org)",
        "pipx" => "pipx (https://pipx.pypa.io)",
        "dnx" | "dotnet" => ".NET (https://dotnet.microsoft.com)",
        "java" => "a Java runtime",
        _ => return None,
    })
}

fn not_started(message: String) -> Error {
    Error::unreachable(message).at(Phase::NotSent).with(|c| c.hard = true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use machina_core::ErrorKind;
    use rustix::process::Pid;
    use std::sync::mpsc::sync_channel;
    use tokio::io::AsyncReadExt;

    async fn start(program: &Program) -> Result<(Process, Streams)> {
        Process::start(program, &Custody::new(&StdioConfig::default())).await
    }

    fn program(command: &str, args: &[&str]) -> Program {
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]);
        Program { command: command.into(), args: args.iter().map(ToString::to_string).collect(), env, cwd: None }
    }

    fn alive(pid: i32) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        state.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
    }

    async fn gone(pid: i32) -> bool {
        for _ in 0..200 {
            if !alive(pid) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// A child whose grandchild sleeps; both ignore SIGTERM if `stubborn`.
    async fn family(stubborn: bool) -> (Process, Streams, [i32; 2]) {
        let trap = if stubborn { "trap '' TERM; " } else { "" };
        let script = format!("{trap}sleep 300 & echo $$ $!; wait; wait");
        let (process, mut streams) = start(&program("sh", &["-c", &script])).await.unwrap();
        let mut text = String::new();
        while !text.ends_with('\n') {
            text.push(char::from(streams.stdout.read_u8().await.unwrap()));
        }
        let pids: Vec<i32> = text.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        (process, streams, [pids[0], pids[1]])
    }

    #[tokio::test]
    async fn a_missing_program_says_what_to_install_and_is_hard() {
        let mut uvx = program("uvx", &[]);
        uvx.env.insert("PATH".into(), "/nonexistent".into());
        let error = start(&uvx).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert_eq!(error.message(), "command `uvx` not found on PATH; install uv (https://docs.astral.sh/uv)");
        assert!(error.context().hard && error.context().phase == Some(Phase::NotSent));
        let error = start(&program("/etc/passwd", &[])).await.unwrap_err();
        assert!(error.message().contains("may not be executed"), "{error}");
        let mut elsewhere = program("sh", &[]);
        elsewhere.cwd = Some("/nonexistent".into());
        assert!(start(&elsewhere).await.unwrap_err().message().contains("/nonexistent"));
    }

    #[tokio::test]
    async fn the_environment_is_only_what_was_given() {
        let mut program = program("env", &[]);
        program.env.insert("ONLY".into(), "this".into());
        let (mut process, mut streams) = start(&program).await.unwrap();
        let mut text = String::new();
        streams.stdout.read_to_string(&mut text).await.unwrap();
        assert!(process.ended().await.unwrap().success());
        let mut names: Vec<_> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        names.sort_unstable();
        assert_eq!(names, ["ONLY", "PATH"]);
    }

    #[tokio::test]
    async fn a_stop_ends_the_whole_group() {
        for stubborn in [false, true] {
            let (mut process, streams, pids) = family(stubborn).await;
            drop(streams);
            let patience = Patience { after_eof: Duration::from_millis(50), after_term: Duration::from_millis(200) };
            process.stop(patience).await.unwrap();
            assert!(!Path::new(&format!("/proc/{}", pids[0])).exists(), "the child is reaped");
            assert!(gone(pids[1]).await, "the grandchild is gone");
        }
    }

    #[tokio::test]
    async fn a_child_that_ends_takes_its_grandchildren_along() {
        let (mut process, _streams, pids) = family(false).await;
        rustix::process::kill_process(Pid::from_raw(pids[0]).unwrap(), Signal::KILL).unwrap();
        assert!(!process.ended().await.unwrap().success());
        assert!(gone(pids[1]).await);
    }

    #[tokio::test]
    async fn a_dropped_owner_takes_the_group_along() {
        let (process, _streams, pids) = family(true).await;
        drop(process);
        assert!(gone(pids[0]).await && gone(pids[1]).await);
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let asked = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let family = runtime.block_on(family(false));
            (runtime, family)
        });
        let (runtime, (process, _streams, pids)) = asked.join().unwrap();
        runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(alive(pids[0]) && alive(pids[1]));
            drop(process);
            assert!(gone(pids[0]).await && gone(pids[1]).await);
        });
    }

    /// Asserts that no process with `marker` among its arguments is left of what was asked for before.
    async fn none_is_left(marker: &str) {
        // Behind it in the queue.
        let (mut last, _streams) = start(&program("true", &[])).await.unwrap();
        last.ended().await.unwrap();
        let running = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(marker)
            })
        };
        for _ in 0..300 {
            if !running() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it still runs");
    }

    #[tokio::test]
    async fn an_abandoned_start_leaves_nothing_behind() {
        let marker = format!("300.{:09}", std::process::id());
        let sleeper = program("sleep", &[&marker]);
        let (go, wait) = sync_channel::<()>(0);
        let mut blocked = Box::pin(spawner::run(move || wait.recv()));
        assert!(futures_util::poll!(&mut blocked).is_pending());
        assert!(start(&sleeper).now_or_never().is_none(), "it is not its turn yet");
        go.send(()).unwrap();
        blocked.await.unwrap().unwrap();
        none_is_left(&marker).await;
        // And where it may be its turn already.
        drop(start(&sleeper).now_or_never());
        none_is_left(&marker).await;
    }

    #[test]
    fn a_panic_takes_the_group_along() {
        let (send, receive) = sync_channel(1);
        let panicked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (_process, _streams, pids) = family(true).await;
                send.send(pids).unwrap();
                panic!("on purpose");
            });
        });
        assert!(panicked.join().is_err());
        let pids = receive.recv().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { assert!(gone(pids[0]).await && gone(pids[1]).await) });
    }
}
