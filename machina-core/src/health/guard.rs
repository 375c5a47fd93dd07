//! Machina looks after itself: whether its loop is in time, and whether so many
//! instances fail at once that the fault is likelier its own. Says how much time
//! probes get and whether soft failures may take instances down; what a failure
//! means otherwise is decided by [`step`](super::state::step).

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::lag::Lag;
use super::preservation::Preservation;
use super::reported::HealthState;
use crate::cell::Recorded;
use crate::core::Core;
use crate::event::EventKind;
use crate::model::{HealthConfig, InstanceId};

/// How often the loop is measured.
const MEASURED_EVERY: Duration = Duration::from_millis(500);

/// Who is less late than this does not stand still any more.
const MOVES_AGAIN: Duration = Duration::from_secs(1);

/// How long a connection to this very process may take.
const SELF_TEST_TIMEOUT: Duration = Duration::from_millis(250);

/// What Machina knows of itself.
#[derive(Debug)]
pub(crate) struct Guard {
    preservation: Mutex<Preservation>,
    holds: AtomicBool,
    /// In thousandths.
    factor: AtomicU32,
    lag_max: Duration,
    /// Who is later than a probe waits for its answer stands still; nobody does where
    /// self-preservation is off.
    still_from: Duration,
}

impl Guard {
    pub(crate) fn new(config: &HealthConfig) -> Self {
        let preservation = Preservation::new(config.interval, config.self_preservation_percentage);
        Self {
            preservation: Mutex::new(preservation),
            holds: AtomicBool::new(false),
            factor: AtomicU32::new(1000),
            lag_max: config.lag_max,
            still_from: match config.self_preservation_percentage {
                100.. => Duration::MAX,
                _ => config.timeout.max(MOVES_AGAIN),
            },
        }
    }

    /// Whether soft failures take no instance down, because so many fail.
    pub(crate) fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// How many times their time probes get: 1 to 8.
    pub(crate) fn factor(&self) -> f64 {
        f64::from(self.factor.load(Ordering::Relaxed)) / 1000.0
    }

    /// Has evidence recorded by `record`, which is told whether soft failures may
    /// take no instance down now. One at a time, so that each knows of the one before.
    /// `soft` says whether the evidence is a soft failure, of one of `targets`
    /// instances that are watched. Where none is, nothing is frozen: what is known
    /// comes from calls alone.
    pub(crate) fn record(
        &self,
        instance: InstanceId,
        soft: bool,
        targets: usize,
        record: impl FnOnce(bool) -> Recorded,
    ) -> Recorded {
        if !soft || targets == 0 {
            let recorded = record(false);
            if recorded.transition.is_some() {
                self.preservation().settled(instance);
            }
            return recorded;
        }
        let now = Instant::now();
        let mut preservation = self.preservation();
        let recorded = record(preservation.is_frozen(now, targets));
        if let Some((from, to)) = recorded.transition {
            if from == HealthState::Healthy {
                preservation.fails(instance, now, targets);
            }
            if from.is_up() && to == HealthState::Unhealthy {
                preservation.ejected(instance, now);
            }
        }
        self.holds.store(preservation.holds(), Ordering::Relaxed);
        recorded
    }

    /// The instance is not watched any more.
    pub(crate) fn forget(&self, instance: InstanceId) {
        self.preservation().settled(instance);
    }

    fn preservation(&self) -> MutexGuard<'_, Preservation> {
        self.preservation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measured(&self, lag: Lag) {
        let thousandths = (lag.factor(self.lag_max) * 1000.0).round();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1000 to 8000")]
        self.factor.store(thousandths as u32, Ordering::Relaxed);
        let mut preservation = self.preservation();
        let from = if preservation.is_still() { MOVES_AGAIN } else { self.still_from };
        preservation.stands_still(lag.lateness() >= from, Instant::now());
        self.holds.store(preservation.holds(), Ordering::Relaxed);
    }

    /// Ends self-preservation where it is over; returns how many fail.
    fn look(&self, targets: usize, test: &io::Result<()>) -> usize {
        let mut preservation = self.preservation();
        preservation.look(Instant::now(), targets, test.is_ok());
        self.holds.store(preservation.holds(), Ordering::Relaxed);
        preservation.failing()
    }
}

/// Whether this process can open a connection at all, if only to itself: takes
/// microseconds, or says what is short.
fn self_test() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    TcpStream::connect_timeout(&listener.local_addr()?, SELF_TEST_TIMEOUT).map(drop)
}

impl Core {
    /// Measures the loop, and tells when self-preservation begins and ends; runs
    /// until cancelled.
    pub(crate) async fn watch_itself(self: Arc<Self>) {
        let (mut lag, mut told) = (Lag::default(), false);
        loop {
            let due = Instant::now() + MEASURED_EVERY;
            tokio::time::sleep_until(due).await;
            lag.measured(due.elapsed());
            self.guard.measured(lag);
            if !told && !self.guard.holds() {
                continue;
            }
            let (targets, test) = (self.monitor.watched(), self_test());
            let failing = self.guard.look(targets, &test);
            let active = self.guard.holds();
            if active != told {
                told = active;
                self.tell_of_preservation(active, failing, targets, &test, lag.lateness());
            }
        }
    }

    fn tell_of_preservation(
        &self,
        active: bool,
        failing: usize,
        targets: usize,
        test: &io::Result<()>,
        late: Duration,
    ) {
        let test = match test {
            Ok(()) => "its self-test passed".to_owned(),
            Err(error) => format!("its self-test failed: {error}"),
        };
        let message = match active {
            true if self.guard.preservation().is_still() => format!(
                "Machina itself did nothing for {:.1} s ({test}): no instance is taken out of use for what it missed",
                late.as_secs_f64()
            ),
            true => format!(
                "{failing} of {targets} instances fail at once: the fault may be Machina's own ({test}); \
                 none is taken out of use for it"
            ),
            false => format!("{failing} of {targets} instances fail; {test}"),
        };
        match active {
            true => tracing::error!(failing, targets, %message, "self-preservation begins"),
            false => tracing::warn!(failing, targets, %message, "self-preservation ends"),
        }
        let kind = EventKind::SelfPreservation { active, failing, targets, message };
        self.events.publish(self.view().revision(), None, kind);
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
