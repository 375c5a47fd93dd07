//! How a simulated instance behaves, and what it is made of.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Phase};

/// After how long a held connection ends over which nothing comes: two signs of
/// life were missed, each 5 s after it was asked for, and so was the wait for the first.
const UNHEARD: Duration = Duration::from_secs(15);

/// How a simulated instance behaves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers everything after its latency.
    Up,
    /// Refuses connections; its open sessions are gone.
    Refuse,
    /// Its process is gone: the system refuses connections, and its open sessions
    /// are over; a child process cannot be started.
    Killed,
    /// Accepts connections and answers nothing.
    Wedged,
    /// Nothing that is sent arrives, and nobody says so: connections are never
    /// made, and open sessions stay silent; a connection that is held ends when two
    /// signs of life were missed.
    BlackHole,
    /// [`Behaviour::Up`] for the first half of each period, [`Behaviour::Killed`]
    /// for the second.
    Flap {
        /// How long both take together.
        period: Duration,
    },
    /// Executes calls, then loses the connection before it answers.
    LoseAnswers,
    /// Answers 401 to everything.
    Unauthorised,
    /// Answers everything with this HTTP status.
    Status(u16),
    /// Answers 429 to calls.
    Busy,
    /// Answers calls with a protocol error.
    Reject,
    /// Reports progress of a call, then loses the connection.
    LoseAfterProgress,
    /// Executes calls, and answers with a request for input instead of a result.
    AsksForInput,
}

/// A simulated instance.
#[derive(Debug)]
pub(super) struct Sim {
    behaviour: Behaviour,
    since: Instant,
    pub(super) latency: Duration,
    /// The share of requests and connections that are never answered.
    pub(super) loss: f64,
    /// The share of calls that fail at once.
    pub(super) failing: f64,
    /// How many calls it works on at a time; no limit without.
    pub(super) workers: Option<Arc<Semaphore>>,
    /// Whether a session is a connection that both sides hold.
    pub(super) held: bool,
    pub(super) stdio: bool,
    /// Whether its sessions ended because its process did.
    pub(super) exited: bool,
    pub(super) tools: Vec<Value>,
    pub(super) prompts: Vec<Value>,
    pub(super) executions: u64,
    pub(super) cancellations: u64,
    pub(super) connections: u64,
    pub(super) open: u64,
    /// How often its sessions were ended, and what ends those that are open.
    ended: u64,
    pub(super) end: CancellationToken,
    /// Changes whenever the tools or prompts do.
    pub(super) listed: watch::Sender<u64>,
}

impl Sim {
    pub(super) fn new(stdio: bool, tools: Vec<Value>) -> Self {
        Self {
            behaviour: Behaviour::Up,
            since: Instant::now(),
            latency: Duration::from_millis(1),
            loss: 0.0,
            failing: 0.0,
            workers: None,
            held: true,
            stdio,
            exited: false,
            tools,
            prompts: Vec::new(),
            executions: 0,
            cancellations: 0,
            connections: 0,
            open: 0,
            ended: 0,
            end: CancellationToken::new(),
            listed: watch::Sender::new(0),
        }
    }

    /// How it behaves now.
    pub(super) fn behaviour(&self) -> Behaviour {
        match self.behaviour {
            Behaviour::Flap { .. } if self.beat() % 2 == 1 => Behaviour::Killed,
            Behaviour::Flap { .. } => Behaviour::Up,
            other => other,
        }
    }

    pub(super) fn set(&mut self, behaviour: Behaviour) {
        let ends = matches!(behaviour, Behaviour::Refuse | Behaviour::Killed | Behaviour::Flap { .. })
            || matches!(self.behaviour, Behaviour::Flap { .. });
        (self.behaviour, self.since) = (behaviour, Instant::now());
        if ends {
            self.end_sessions(self.stdio && behaviour != Behaviour::Refuse);
        }
    }

    /// Ends the open sessions; a process says so itself.
    pub(super) fn end_sessions(&mut self, exited: bool) {
        self.exited = exited;
        self.ended += 1;
        std::mem::take(&mut self.end).cancel();
    }

    /// How often its sessions have ended of their own accord since it behaves so.
    pub(super) fn beat(&self) -> u128 {
        if self.behaviour == Behaviour::BlackHole {
            return u128::from(self.held && self.since.elapsed() >= UNHEARD);
        }
        self.half_period().map_or(0, |half| self.since.elapsed().as_nanos() / half.as_nanos())
    }

    /// Changes whenever its sessions end.
    pub(super) fn life(&self) -> (u64, u128) {
        (self.ended, self.beat())
    }

    /// When it will change so next.
    pub(super) fn next_beat(&self) -> Option<Instant> {
        if self.behaviour == Behaviour::BlackHole {
            return Some(self.since + UNHEARD).filter(|_| self.held && self.beat() == 0);
        }
        let half = self.half_period()?;
        let beats = u32::try_from(self.beat() + 1).unwrap_or(u32::MAX);
        Some(self.since + half * beats)
    }

    fn half_period(&self) -> Option<Duration> {
        match self.behaviour {
            Behaviour::Flap { period } => Some((period / 2).max(Duration::from_millis(1))),
            _ => None,
        }
    }

    /// Why nothing can be sent to it, if its process is gone.
    pub(super) fn refusal(&self) -> Option<Error> {
        let killed = self.behaviour() == Behaviour::Killed;
        killed.then(|| match self.stdio {
            true => Error::unreachable("the process does not start").at(Phase::NotSent).with(|c| c.hard = true),
            false => {
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                Error::unreachable("connection refused by the system").at(Phase::NotSent).caused_by(refused)
            }
        })
    }

    /// What it answers instead of a result, if it answers everything alike.
    pub(super) fn status(&self) -> Option<Error> {
        let status = match self.behaviour() {
            Behaviour::Unauthorised => 401,
            Behaviour::Status(status) => status,
            _ => return None,
        };
        let error = match status {
            401 | 403 => Error::rejected("wants credentials"),
            429 => Error::overloaded("too many requests").retry_after(Duration::from_secs(1)),
            _ => Error::rejected(format!("answers with HTTP status {status}")),
        };
        Some(error.at(Phase::Refused).with(|context| context.upstream_status = Some(status)))
    }
}
