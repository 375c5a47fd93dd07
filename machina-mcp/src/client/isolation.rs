//! What a child does to itself between fork and exec: it dies with Machina, gains no privileges, opens a bounded
//! number of files, leaves no memory on disk, and keeps its files to itself.
//!
//! The one module with `unsafe`, which [`CommandExt::pre_exec`] is: after the fork of a program with threads only
//! calls are sound that are safe in a signal handler. The closures here make system calls on values that were made
//! before the fork; they allocate nothing, take no lock, and cannot panic. There is no way around it that is as good:
//! a signal at the parent's death can only be asked for by the child itself; neither process-wrap nor command-fds do
//! it; and a program that does it and then becomes the real one would cost another exec of a large binary for each
//! child, hide why the real exec failed, and be missing where a host embeds Machina as a library.

#![allow(unsafe_code, reason = "pre_exec has no safe form; see the head of this module")]

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::Mode;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, Resource, Rlimit, Signal, getpid, getppid, getrlimit, setrlimit, setsid, umask};

use super::config::StdioConfig;

/// The argument by which a program is told that it is a shepherd.
const SHEPHERD: &str = "shepherd";

/// The signal that tells a shepherd that the thread which started it has ended. By default it is ignored, so that it
/// ends no shepherd that does not listen yet.
pub(super) const PARENT_ENDED: Signal = Signal::URG;

/// How many files may have been opened since the highest of them was looked for.
const FILES_SLACK: i32 = 64;

/// What is done to children.
#[derive(Debug, Clone, Copy)]
pub(super) struct Isolation {
    open_files_max: u64,
    core_dumps: bool,
    private_files: bool,
    no_new_privs: bool,
}

impl Isolation {
    pub(super) fn new(config: &StdioConfig) -> Self {
        Self {
            open_files_max: config.open_files_max as u64,
            core_dumps: config.core_dumps,
            private_files: config.private_files,
            no_new_privs: config.no_new_privs,
        }
    }

    /// Prepares `command`, which must be started from a thread that does not end before the process does.
    pub(super) fn apply_to(self, command: &mut Command) {
        let (parent, highest, files) = (getpid(), highest_file(), self.files());
        let child = move || {
            die_with(parent, Signal::KILL)?;
            self.restrict(files)?;
            keep_from_exec(highest);
            Ok(())
        };
        // SAFETY: the closure makes system calls only; see the head of this module.
        unsafe { command.pre_exec(child) };
    }

    /// The limits of open files: never above our own.
    fn files(self) -> Rlimit {
        let own = getrlimit(Resource::Nofile);
        let below = |limit: Option<u64>| Some(limit.map_or(self.open_files_max, |own| own.min(self.open_files_max)));
        Rlimit { current: below(own.current), maximum: below(own.maximum) }
    }

    fn restrict(self, files: Rlimit) -> io::Result<()> {
        setrlimit(Resource::Nofile, files)?;
        if !self.core_dumps {
            setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        }
        if self.private_files {
            umask(Mode::RWXG | Mode::RWXO);
        }
        #[cfg(target_os = "linux")]
        if self.no_new_privs {
            rustix::thread::set_no_new_privs(true)?;
        }
        Ok(())
    }
}

/// Starts `program` as a shepherd: in a session of its own, where no terminal reaches it, and with nothing of ours
/// but the pipe to its stdin.
pub(super) fn start_shepherd(program: &Path) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg(SHEPHERD).env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let (parent, highest) = (getpid(), highest_file());
    let child = move || {
        setsid()?;
        die_with(parent, PARENT_ENDED)?;
        keep_from_exec(highest);
        Ok(())
    };
    // SAFETY: the closure makes system calls only; see the head of this module.
    unsafe { command.pre_exec(child) };
    command.spawn()
}

/// Has the system send `signal` when the thread ends that started this process, unless that happened already.
fn die_with(parent: Pid, signal: Signal) -> io::Result<()> {
    #[cfg(not(target_os = "linux"))]
    let _ = signal;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
}

/// The highest file descriptor of this process.
fn highest_file() -> i32 {
    let entries = fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.max().unwrap_or(255)
}

/// Has every file but the standard streams closed at exec: those that a host or a library left open are no child's
/// affair.
fn keep_from_exec(highest: i32) {
    for file in 3..=highest.saturating_add(FILES_SLACK) {
        // SAFETY: used for this one call only, which says so where the number is not that of an open file.
        let file = unsafe { BorrowedFd::borrow_raw(file) };
        let _ = fcntl_setfd(file, FdFlags::CLOEXEC);
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    /// What a shell says of itself that was started under `config`.
    fn said(config: &StdioConfig, script: &str) -> String {
        let mut command = Command::new("sh");
        Isolation::new(config).apply_to(command.args(["-c", script]));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    const LIMITS: &str = "ulimit -Hn; ulimit -Sn; ulimit -c; umask; grep NoNewPrivs /proc/self/status";

    #[test]
    fn a_child_is_limited_as_configured() {
        let config = StdioConfig { open_files_max: 200, ..StdioConfig::default() };
        assert_eq!(said(&config, LIMITS), "200\n200\n0\n0077\nNoNewPrivs:\t1\n");

        let unlimited = StdioConfig {
            open_files_max: usize::MAX,
            core_dumps: true,
            private_files: false,
            no_new_privs: false,
            ..StdioConfig::default()
        };
        let mut shell = Command::new("sh");
        let ours = shell.args(["-c", LIMITS]).output().unwrap();
        assert_eq!(said(&unlimited, LIMITS), String::from_utf8(ours.stdout).unwrap(), "as we are ourselves");
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let high = StdioConfig { open_files_max: 100_000_000, ..StdioConfig::default() };
        let hard: u64 = said(&high, "ulimit -Hn").trim().parse().unwrap();
        assert_eq!(hard, most.min(100_000_000));
    }

    #[test]
    fn a_child_dies_with_its_parent_and_inherits_no_files() {
        let leaked = File::open("/dev/null").unwrap();
        fcntl_setfd(&leaked, FdFlags::empty()).unwrap();
        let script = "import ctypes, os\n\
            signal = ctypes.c_int()\n\
            ctypes.CDLL(None).prctl(2, ctypes.byref(signal))\n\
            print(signal.value, [f for f in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + f)])";
        let mut command = Command::new("python3");
        Isolation::new(&StdioConfig::default()).apply_to(command.args(["-c", script]));
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "9 ['0', '1', '2']\n", "{output:?}");
        assert!(leaked.as_raw_fd() > 2);
    }

    #[test]
    fn a_child_whose_parent_is_gone_already_does_not_start() {
        // As if the parent had ended after the fork: the process 1 is not it.
        assert_eq!(die_with(Pid::INIT, Signal::URG).unwrap_err().raw_os_error(), Some(Errno::SRCH.raw_os_error()));
        rustix::process::set_parent_process_death_signal(None).unwrap();
    }
}
