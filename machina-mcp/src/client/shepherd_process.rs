//! The shepherd itself: reads from stdin which process groups there are, and kills those that are left when stdin
//! ends. Refuses to end at the signals by which a terminal or a service manager ends programs, for whoever started it
//! got them too and may need it yet; and to kill whoever got the number of a group later.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use machina_core::{Error, Result};
use rustix::process::{Signal, getppid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use super::group::Group;
use super::isolation::PARENT_ENDED;
use super::lines::{Line, Lines};

/// The longest line that is understood.
const LINE_BYTES_MAX: usize = 64;

/// Is a shepherd until stdin ends: what the hidden command `machina shepherd` does. Lines are `+NUMBER STARTED` for
/// a process group, and `-NUMBER` for one that has ended.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) if stdin is not a pipe: it is started by Machina, not by people;
/// [`Internal`](machina_core::ErrorKind::Internal) if the system does not let it listen.
pub fn run_shepherd() -> Result<()> {
    let internal = |error: io::Error| Error::internal("a shepherd cannot listen").caused_by(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(internal)?;
    runtime.block_on(async {
        let parent = getppid();
        let mut parent_ended = signal(SignalKind::from_raw(PARENT_ENDED.as_raw())).map_err(internal)?;
        // Taken and never looked at.
        let passed_over = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
        let _passed_over = passed_over.map(|kind| signal(SignalKind::from_raw(kind.as_raw())));
        let stdin = io::stdin().as_fd().try_clone_to_owned().and_then(Receiver::from_owned_fd);
        let mut stdin = stdin.map_err(|error| {
            let detail = "must be a pipe: a shepherd is started by machina itself";
            Error::invalid_field("stdin", detail).caused_by(error)
        })?;
        let (mut flock, mut lines, mut buffer) = (Flock::default(), Lines::new(LINE_BYTES_MAX), vec![0; 4096]);
        loop {
            tokio::select! {
                read = stdin.read(&mut buffer) => match read {
                    Ok(count @ 1..) => lines.push(&buffer[..count], |line| flock.hear(&line)),
                    Ok(0) | Err(_) => break,
                },
                // Where a fork of Machina holds the other end of the pipe too, its end is told by this alone.
                _ = parent_ended.recv() => if getppid() != parent {
                    break;
                },
            }
        }
        // What was told last may still be in the pipe when the signal comes.
        while let Ok(count @ 1..) = rustix::io::read(&stdin, &mut buffer) {
            lines.push(&buffer[..count], |line| flock.hear(&line));
        }
        flock.end();
        Ok(())
    })
}

/// The groups that are left.
#[derive(Debug, Default)]
struct Flock(BTreeMap<i32, Group>);

impl Flock {
    fn hear(&mut self, line: &Line) {
        let Line::Whole(line) = line else { return };
        let Ok(line) = std::str::from_utf8(line) else { return };
        if let Some(group) = line.strip_prefix('+').and_then(|group| group.parse::<Group>().ok()) {
            self.0.insert(group.number(), group);
        } else if let Some(number) = line.strip_prefix('-').and_then(|number| number.parse().ok()) {
            self.0.remove(&number);
        }
    }

    fn end(&self) {
        self.0.values().for_each(|group| group.signal(Signal::KILL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_line_of_ours_is_passed_over() {
        let mut flock = Flock::default();
        let mut lines = Lines::new(LINE_BYTES_MAX);
        let text = format!("+70 5\n+71 -\n+72 6\nhello\n+1 5\n+\n-\n-x\n{}\n-71\n-99\n+72 7\n", "+7".repeat(100));
        lines.push(text.as_bytes(), |line| flock.hear(&line));
        let left: Vec<_> = flock.0.values().map(ToString::to_string).collect();
        assert_eq!(left, ["70 5", "72 7"]);
    }
}
