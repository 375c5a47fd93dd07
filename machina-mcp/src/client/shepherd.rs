//! Machina's side of the shepherd: another process that is told of each process group, and ends those that are left
//! when Machina ends in a way that lets it do nothing, as `kill -9` does. Refuses to be waited for: a shepherd that
//! does not listen is replaced, and no child starts later for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::group::Group;
use super::isolation::start_shepherd;
use super::spawner;

/// The first and the longest pause before another shepherd is started.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// A shepherd, started with the first group that it is told of. When this is dropped it is let go.
#[derive(Debug)]
pub(super) struct Shepherd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    flock: Mutex<Flock>,
    over: Condvar,
}

/// What the shepherd is to know.
#[derive(Debug, Default)]
struct Flock {
    groups: BTreeMap<i32, Group>,
    /// The way to the shepherd that runs.
    pipe: Option<Pipe>,
    /// Whether a thread sees to it that one runs.
    kept: bool,
    over: bool,
}

#[derive(Debug)]
struct Pipe {
    stdin: ChildStdin,
    process: Option<Pid>,
}

impl Shepherd {
    /// A shepherd that is the process `program shepherd`.
    pub(super) fn new(program: PathBuf) -> Self {
        Self(Arc::new(Inner { program, flock: Mutex::default(), over: Condvar::new() }))
    }

    /// Has `group` ended if we end before it.
    pub(super) fn tend(&self, group: Group) {
        let mut flock = self.0.flock();
        flock.groups.insert(group.number(), group);
        flock.tell(&format!("+{group}\n"));
        if !flock.kept {
            let inner = Arc::clone(&self.0);
            let thread = Builder::new().name("machina-shepherd".to_owned()).spawn(move || inner.keep());
            match thread {
                Ok(_) => flock.kept = true,
                Err(error) => tracing::warn!(%error, "no thread for the shepherd"),
            }
        }
    }

    /// `group` has ended: its number is anyone's now.
    pub(super) fn release(&self, group: Group) {
        let mut flock = self.0.flock();
        if flock.groups.remove(&group.number()).is_some() {
            flock.tell(&format!("-{}\n", group.number()));
        }
    }
}

impl Drop for Shepherd {
    fn drop(&mut self) {
        let mut flock = self.0.flock();
        flock.over = true;
        flock.pipe = None;
        self.0.over.notify_all();
    }
}

impl Flock {
    /// Writes one line to the shepherd that runs, if one does. It is told everything when it starts.
    fn tell(&mut self, line: &str) {
        let Some(pipe) = &self.pipe else { return };
        if let Err(error) = (&pipe.stdin).write_all(line.as_bytes()) {
            if error.kind() == io::ErrorKind::WouldBlock
                && let Some(process) = pipe.process
            {
                // It lives and does not listen. It must not take the end of this pipe for ours later.
                let _ = kill_process(process, Signal::KILL);
            }
            self.pipe = None;
        }
    }
}

impl Inner {
    fn flock(&self) -> MutexGuard<'_, Flock> {
        self.flock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a shepherd runs for as long as one is wanted.
    fn keep(&self) {
        let mut pause = PAUSES.0;
        loop {
            let begun = Instant::now();
            let ended = self.start().and_then(|mut process| process.wait());
            let mut flock = self.flock();
            flock.pipe = None;
            if flock.over {
                return;
            }
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::warn!(how, "the shepherd ended and is started again");
            if begun.elapsed() > PAUSES.1 {
                pause = PAUSES.0;
            }
            let waited = self.over.wait_timeout_while(flock, pause, |flock| !flock.over);
            if waited.unwrap_or_else(PoisonError::into_inner).0.over {
                return;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Starts a shepherd and tells it everything.
    fn start(&self) -> io::Result<Child> {
        let program = self.program.clone();
        let mut process = spawner::run_blocking(move || start_shepherd(&program)).map_err(io::Error::other)??;
        let Some(stdin) = process.stdin.take() else { return Ok(process) };
        // Not under the lock: it may take its time to begin to read.
        let told = self.flock().groups.clone();
        let _ = (&stdin).write_all(lines(told.values()).as_bytes());
        fcntl_setfl(&stdin, OFlags::NONBLOCK)?;
        let mut flock = self.flock();
        if !flock.over {
            let process = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
            flock.pipe = Some(Pipe { stdin, process });
            let missed = flock.groups.values().filter(|group| told.get(&group.number()) != Some(*group));
            let gone = told.keys().filter(|number| !flock.groups.contains_key(number));
            let mut text = gone.fold(String::new(), |mut text, number| {
                let _ = writeln!(text, "-{number}");
                text
            });
            text.push_str(&lines(missed));
            flock.tell(&text);
        }
        drop(flock);
        Ok(process)
    }
}

fn lines<'a>(groups: impl Iterator<Item = &'a Group>) -> String {
    groups.fold(String::new(), |mut text, group| {
        let _ = writeln!(text, "+{group}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::group::tests::sleeper;
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    fn end((mut child, group): (Child, Group)) {
        group.signal(Signal::KILL);
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_shepherd_that_ends_is_replaced_and_told_again_what_there_is() {
        let directory = std::env::temp_dir().join(format!("machina-shepherd-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (program, heard) = (directory.join("program"), directory.join("heard"));
        fs::write(&program, format!("#!/bin/sh\nexec /usr/bin/head -n 2 >> '{}'\n", heard.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let (one, two, three) = (sleeper(), sleeper(), sleeper());
        let shepherd = Shepherd::new(program);
        shepherd.tend(one.1);
        shepherd.release(one.1);
        shepherd.tend(two.1);
        shepherd.tend(three.1);
        let of_two = format!("+{}", two.1);
        let mut text = String::new();
        for _ in 0..1_000 {
            text = fs::read_to_string(&heard).unwrap_or_default();
            if text.matches(&of_two).count() >= 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(shepherd);
        let last: Vec<_> = text.lines().rev().take(2).collect();
        assert!(text.matches(&of_two).count() >= 3, "{text}");
        assert!(!last.contains(&format!("+{}", one.1).as_str()), "what has ended is not told again: {text}");
        [one, two, three].into_iter().for_each(end);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_shepherd_that_cannot_be_started_delays_nobody() {
        let shepherd = Shepherd::new("/nonexistent/machina".into());
        let one = sleeper();
        let begun = Instant::now();
        for _ in 0..1_000 {
            shepherd.tend(one.1);
            shepherd.release(one.1);
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        end(one);
    }

    #[test]
    fn a_shepherd_that_does_not_listen_is_killed_and_not_waited_for() {
        let mut deaf = Command::new("sleep").arg("300").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = deaf.stdin.take().unwrap();
        fcntl_setfl(&stdin, OFlags::NONBLOCK).unwrap();
        let process = Pid::from_raw(i32::try_from(deaf.id()).unwrap());
        let mut flock = Flock { pipe: Some(Pipe { stdin, process }), ..Flock::default() };
        let lines = (0..100_000).take_while(|number| {
            flock.tell(&format!("+{number} 12345\n"));
            flock.pipe.is_some()
        });
        let told = lines.count();
        assert!((1_000..99_999).contains(&told), "{told} lines fit into the pipe");
        assert_eq!(deaf.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}
