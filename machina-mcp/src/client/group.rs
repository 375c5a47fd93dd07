//! A process group, known by its number and by the time at which its leader started: numbers are used again.
//! Refuses to signal a group whose number has gone to someone else, as far as the system lets it see that.

use std::fmt;
use std::str::FromStr;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

/// The group that one child leads. Its text form is `NUMBER STARTED`, or `NUMBER -` where there is no `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    leader: Pid,
    /// In ticks since the machine started.
    started: Option<u64>,
}

impl Group {
    /// The group that the process `id` leads, which is not waited for yet.
    pub(super) fn led_by(id: u32) -> Option<Self> {
        let leader = i32::try_from(id).ok().and_then(Pid::from_raw)?;
        Some(Self { leader, started: started(leader) })
    }

    /// Its number.
    pub(super) fn number(self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    /// Sends a signal to each of its processes; to no one if they are gone.
    pub(super) fn signal(self, signal: Signal) {
        if self.is_another() {
            return;
        }
        if let Err(error) = kill_process_group(self.leader, signal)
            && error != Errno::SRCH
        {
            tracing::warn!(group = self.number(), %error, "could not signal a process group");
        }
    }

    /// Whether the number belongs to another process now. A group keeps the number of its leader taken for as long
    /// as one of its processes lives, so where the leader is gone and no other is in its place, it is still ours.
    fn is_another(self) -> bool {
        self.started.is_some_and(|then| started(self.leader).is_some_and(|now| now != then))
    }
}

/// When the process started, as the 22nd field of its `stat` says.
fn started(process: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // The name of the program is in parentheses and may hold anything.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.started {
            Some(started) => write!(f, "{} {started}", self.number()),
            None => write!(f, "{} -", self.number()),
        }
    }
}

impl FromStr for Group {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, started) = text.split_once(' ').ok_or(())?;
        // To signal the group 1 would be to signal every process.
        let number = number.parse().ok().filter(|number| *number > 1).ok_or(())?;
        let started = if started == "-" { None } else { Some(started.parse().map_err(drop)?) };
        Ok(Self { leader: Pid::from_raw(number).ok_or(())?, started })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    /// A process that does nothing, in a group of its own.
    pub(crate) fn sleeper() -> (Child, Group) {
        let child = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
        let group = Group::led_by(child.id()).unwrap();
        (child, group)
    }

    #[test]
    fn its_text_form_is_read_back_and_nothing_else_is() {
        let (mut child, group) = sleeper();
        assert!(group.started.is_some());
        assert_eq!(group.to_string().parse(), Ok(group));
        let without = Group { started: None, ..group };
        assert_eq!(without.to_string().parse(), Ok(without));
        group.signal(Signal::KILL);
        child.wait().unwrap();
        for wrong in ["", "1 5", "0 5", "-7 5", "7", "7 x", "x 7", "7 5 3"] {
            assert_eq!(wrong.parse::<Group>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn whoever_got_the_number_later_is_left_alone() {
        let (mut child, group) = sleeper();
        let before = Group { started: group.started.map(|started| started - 1), ..group };
        before.signal(Signal::KILL);
        assert!(child.try_wait().unwrap().is_none(), "another process has the number");
        Group { started: None, ..group }.signal(Signal::TERM);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()), "without /proc the number counts");
        // Gone: no error, and no one is hit.
        group.signal(Signal::KILL);
    }
}
