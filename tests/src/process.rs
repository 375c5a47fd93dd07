//! A look at the processes of this machine through `/proc`. A process is known
//! by its number and the time it started, because numbers are used again.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait_until;

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    started: u64,
}

struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

impl Process {
    /// The process with this number, if there is one now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: stat(pid)?.started })
    }

    /// This process.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    #[must_use]
    pub fn own() -> Self {
        Self::of(std::process::id()).expect("/proc lists the process that reads it")
    }

    /// Whether it still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Its children and theirs, zombies included.
    #[must_use]
    pub fn descendants(self) -> Vec<Self> {
        let all: Vec<(Self, u32)> = all();
        let mut found = vec![self];
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            found.extend(all.iter().filter(|(_, of)| *of == parent.pid).map(|(process, _)| *process));
            next += 1;
        }
        found.split_off(1)
    }

    /// Whether it has ended and nobody has asked how.
    #[must_use]
    pub fn is_zombie(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state == 'Z')
    }

    /// Whether it is stopped, as by SIGSTOP.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state == 'T')
    }

    /// Its parent, if both are there.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        let stat = stat(self.pid).filter(|stat| stat.started == self.started)?;
        Self::of(stat.parent)
    }

    /// Every process of this machine, zombies left out, whose command line has
    /// `argument` as one of its arguments.
    #[must_use]
    pub fn with_argument(argument: &str) -> Vec<Self> {
        let has = |process: &Self| {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())
        };
        all().into_iter().map(|(process, _)| process).filter(has).collect()
    }

    /// How many files it has open, sockets and pipes included; `None` if it is gone.
    #[must_use]
    pub fn open_files(self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?.count())
    }

    /// How much memory it has resident, in bytes; `None` if it is gone.
    #[must_use]
    pub fn resident_bytes(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }

    /// How much time its threads have spent on a processor until now, with a
    /// resolution of 10 ms; `None` if it is gone.
    #[must_use]
    pub fn processor_time(self) -> Option<Duration> {
        /// The unit of `/proc` (`USER_HZ`) is 100 a second on every Linux.
        const TICK: Duration = Duration::from_millis(10);
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
        Some(TICK * (ticks(11)? + ticks(12)?))
    }

    /// The program and its arguments; empty if it is gone.
    #[must_use]
    pub fn command_line(self) -> Vec<String> {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let parts = line.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        let mut parts: Vec<_> = parts.collect();
        parts.pop();
        parts
    }

    /// Sends a signal to it alone; to no one if it is gone.
    pub fn signal(self, signal: Signal) {
        if let Some(pid) = self.raw().filter(|_| self.is_alive()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Sends a signal to the process group that it leads.
    pub fn signal_group(self, signal: Signal) {
        if let Some(pid) = self.raw() {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn raw(self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }
}

fn all() -> Vec<(Process, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| stat(pid).map(|stat| (Process { pid, started: stat.started }, stat.parent))).collect()
}

/// Waits until every one of `processes` is gone.
///
/// # Panics
/// With those that are left when `patience` is over.
pub async fn wait_until_gone(patience: Duration, processes: &[Process]) {
    let mut left = processes.to_vec();
    wait_until(patience, "processes are gone", async || {
        left.retain(|process| process.is_alive());
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are alive")) }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn sees_descendants_live_and_die() {
        let mut shell = Command::new("sh").args(["-c", "sleep 60 & wait"]).stdout(Stdio::null()).spawn().unwrap();
        let process = Process::of(shell.id()).unwrap();
        wait_until(Duration::from_secs(5), "the shell has a child", async || {
            if process.descendants().len() == 1 { Ok(()) } else { Err("no child".into()) }
        })
        .await;
        let family = process.descendants();
        assert!(Process::own().descendants().contains(&family[0]));
        assert!(process.is_alive() && family[0].is_alive());
        assert_eq!(family[0].parent(), Some(process));
        process.signal(Signal::STOP);
        wait_until(Duration::from_secs(5), "the shell is stopped", async || {
            if process.is_stopped() { Ok(()) } else { Err("it is not".into()) }
        })
        .await;
        process.signal(Signal::CONT);
        assert!(process.resident_bytes().unwrap() > 0 && process.open_files().unwrap() > 0);
        assert!(Process::with_argument("sleep 60 & wait").contains(&process));
        family[0].signal(Signal::KILL);
        wait_until_gone(Duration::from_secs(5), &[process, family[0]]).await;
        assert!(process.is_zombie() && !Process::own().is_zombie());
        shell.wait().unwrap();
        assert_eq!(Process::of(process.pid), None);
    }
}
