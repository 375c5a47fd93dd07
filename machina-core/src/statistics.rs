//! How many calls there were, how long they took and how they ended: counters
//! that a call adds to without a lock, and snapshots of them as plain data.
//!
//! Counts from the start of this process and forgets with it. Knows no
//! exposition format; refuses names that no instance publishes, so that what is
//! counted stays bounded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::connect::Carried;
use crate::error::ErrorKind;
use crate::health::{Observation, ProbeOutcome};

/// The upper bounds of the duration buckets, in seconds: those that
/// OpenTelemetry advises for durations. One more bucket takes what is longer.
pub const DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The same in microseconds.
const BOUNDS_MICROS: [u64; 14] = [
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000, 5_000_000,
    7_500_000, 10_000_000,
];

const BUCKETS: usize = DURATION_BOUNDS.len() + 1;
const KINDS: usize = ErrorKind::ALL.len();

/// How many tools of a service are counted by name.
const TOOLS_MAX: usize = 1000;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// With an answer.
    Answered,
    /// With an answer that says the tool failed (`isError`).
    ToolError,
    /// Without an answer.
    Failed(ErrorKind),
}

/// Calls, as counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CallStatistics {
    /// How many have ended.
    pub count: u64,
    /// How many of them brought no answer.
    pub errors: u64,
    /// The same by the code of the error; kinds that did not occur are absent.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// How many were answered by a tool that said it failed (`isError`).
    pub tool_errors: u64,
    /// How long all of them took together, in seconds.
    pub duration_seconds: f64,
    /// How many took up to each of [`DURATION_BOUNDS`] and longer than the one
    /// before; the last number counts those beyond all of them.
    pub buckets: Vec<u64>,
    /// An estimate of the duration that half of them kept to, in milliseconds;
    /// none while nothing was counted. Durations beyond the last bound count as it.
    pub p50_ms: Option<f64>,
    /// The same for 95 of 100.
    pub p95_ms: Option<f64>,
    /// The same for 99 of 100.
    pub p99_ms: Option<f64>,
}

/// The calls of a service: each once, however many attempts it took, without
/// those that their callers cancelled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatistics {
    /// All of them.
    pub calls: CallStatistics,
    /// By tool, of those that the service publishes; of the first 1,000 that were called.
    pub tools: BTreeMap<String, CallStatistics>,
}

/// What an instance was asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatistics {
    /// Every attempt of a call, or of a request for a prompt or resource.
    pub attempts: CallStatistics,
    /// How many bytes their requests had.
    #[serde(default)]
    pub bytes_sent: u64,
    /// How many bytes of their answers came.
    #[serde(default)]
    pub bytes_received: u64,
    /// Its probes by outcome: `pass`, `degraded`, `auth_required`, `fail` and
    /// `inconclusive`, each of them present.
    pub probes: BTreeMap<String, u64>,
    /// How many calls of its canary brought what they should; they are no attempts.
    #[serde(default)]
    pub canary_passes: u64,
    /// How many did not.
    #[serde(default)]
    pub canary_failures: u64,
}

/// Counts calls. All additions are relaxed: a snapshot may miss the last few.
#[derive(Debug, Default)]
struct CallCounters {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
    tool_errors: AtomicU64,
    errors: [AtomicU64; KINDS],
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl CallCounters {
    fn ended(&self, duration: Duration, outcome: CallOutcome) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        add(&self.buckets[bucket(duration)], 1);
        add(&self.micros, micros);
        match outcome {
            CallOutcome::Answered => {}
            CallOutcome::ToolError => add(&self.tool_errors, 1),
            CallOutcome::Failed(kind) => add(&self.errors[kind as usize], 1),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
    fn snapshot(&self) -> CallStatistics {
        let buckets: Vec<u64> = self.buckets.iter().map(read).collect();
        let by_kind = ErrorKind::ALL.iter().map(|kind| (kind.code().to_owned(), read(&self.errors[*kind as usize])));
        let errors_by_kind: BTreeMap<String, u64> = by_kind.filter(|(_, count)| *count > 0).collect();
        CallStatistics {
            count: buckets.iter().sum(),
            errors: errors_by_kind.values().sum(),
            errors_by_kind,
            tool_errors: read(&self.tool_errors),
            duration_seconds: read(&self.micros) as f64 / 1e6,
            p50_ms: quantile(&buckets, 0.5),
            p95_ms: quantile(&buckets, 0.95),
            p99_ms: quantile(&buckets, 0.99),
            buckets,
        }
    }
}

/// The duration in milliseconds that this share of the counted ones kept to, if
/// within its bucket they are spread evenly.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn quantile(buckets: &[u64], share: f64) -> Option<f64> {
    let count: u64 = buckets.iter().sum();
    let wanted = share * count as f64;
    let mut below = 0;
    for (index, here) in buckets.iter().copied().enumerate().filter(|(_, here)| *here > 0) {
        if (below + here) as f64 >= wanted {
            let lower = index.checked_sub(1).map_or(0.0, |before| DURATION_BOUNDS[before]);
            let upper = DURATION_BOUNDS.get(index).copied().unwrap_or(lower);
            let within = (wanted - below as f64) / here as f64;
            return Some(1000.0 * (upper - lower).mul_add(within, lower));
        }
        below += here;
    }
    None
}

type ByTool = HashMap<String, Arc<CallCounters>, FixedState>;

/// Counts the calls of a service.
#[derive(Debug, Default)]
pub(crate) struct ServiceCounters {
    all: CallCounters,
    tools: ArcSwap<ByTool>,
}

impl ServiceCounters {
    /// A call has ended; `tool` is its tool where the service publishes it.
    pub(crate) fn ended(&self, tool: Option<&str>, duration: Duration, outcome: CallOutcome) {
        self.all.ended(duration, outcome);
        let Some(tool) = tool else { return };
        let known = self.tools.load();
        if let Some(counters) = known.get(tool) {
            return counters.ended(duration, outcome);
        }
        if known.len() >= TOOLS_MAX {
            return;
        }
        self.tools.rcu(|tools| {
            let mut more = ByTool::clone(tools);
            if more.len() < TOOLS_MAX {
                more.entry(tool.to_owned()).or_default();
            }
            more
        });
        if let Some(counters) = self.tools.load().get(tool) {
            counters.ended(duration, outcome);
        }
    }

    /// The duration that 95 of 100 calls of `tool` kept to; `None` while few have ended.
    pub(crate) fn usual_duration(&self, tool: &str) -> Option<Duration> {
        const TELLING: u64 = 20;
        let tools = self.tools.load();
        let buckets: Vec<u64> = tools.get(tool)?.buckets.iter().map(read).collect();
        let millis = quantile(&buckets, 0.95).filter(|_| buckets.iter().sum::<u64>() >= TELLING)?;
        Some(Duration::from_secs_f64(millis / 1000.0))
    }

    pub(crate) fn snapshot(&self) -> ServiceStatistics {
        let tools = self.tools.load();
        let tools = tools.iter().map(|(name, counters)| (name.clone(), counters.snapshot())).collect();
        ServiceStatistics { calls: self.all.snapshot(), tools }
    }
}

const PROBES: [ProbeOutcome; 5] = [
    ProbeOutcome::Pass,
    ProbeOutcome::Degraded,
    ProbeOutcome::AuthRequired,
    ProbeOutcome::Fail { hard: false },
    ProbeOutcome::Inconclusive,
];

/// What the probes of an instance came to since that was last taken.
#[derive(Debug, Default)]
pub(crate) struct ProbeTally {
    durations: [AtomicU64; BUCKETS],
    failures: AtomicU64,
}

/// What a [`ProbeTally`] holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tallied {
    pub(crate) failures: u64,
    pub(crate) durations: Vec<u64>,
}

impl ProbeTally {
    /// A probe has ended; one that only we could not make counts as nothing.
    pub(crate) fn probed(&self, observation: &Observation) {
        match (observation.outcome, observation.response_time) {
            (ProbeOutcome::Fail { .. }, _) => add(&self.failures, 1),
            (ProbeOutcome::Inconclusive, _) | (_, None) => {}
            (_, Some(took)) => add(&self.durations[bucket(took)], 1),
        }
    }

    pub(crate) fn seen(&self) -> Tallied {
        Tallied { failures: read(&self.failures), durations: self.durations.iter().map(read).collect() }
    }

    /// What it holds, and begins anew.
    pub(crate) fn take(&self) -> Tallied {
        let taken = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Tallied { failures: taken(&self.failures), durations: self.durations.iter().map(taken).collect() }
    }
}

impl Tallied {
    pub(crate) fn passes(&self) -> u64 {
        self.durations.iter().sum()
    }

    /// Adds one probe, as a sample in the journal has it.
    pub(crate) fn add_sample(&mut self, failed: bool, response_time: Option<Duration>) {
        self.failures += u64::from(failed);
        if let Some(took) = response_time.filter(|_| !failed) {
            self.durations.resize(BUCKETS, 0);
            self.durations[bucket(took)] += 1;
        }
    }

    /// Adds what another tally held.
    pub(crate) fn add(&mut self, failures: u64, durations: &[u64]) {
        self.failures += failures;
        self.durations.resize(BUCKETS, 0);
        for (sum, more) in self.durations.iter_mut().zip(durations) {
            *sum += more;
        }
    }

    /// The response time in milliseconds that this share of the answers kept to.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        quantile(&self.durations, share)
    }
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    BOUNDS_MICROS.partition_point(|bound| *bound < micros)
}

/// Counts what an instance is asked.
#[derive(Debug, Default)]
pub(crate) struct InstanceCounters {
    attempts: CallCounters,
    /// Bytes of requests, and of their answers.
    carried: [AtomicU64; 2],
    probes: [AtomicU64; PROBES.len()],
    /// Calls of the canary: those that failed, those that passed.
    canary: [AtomicU64; 2],
    pub(crate) tally: ProbeTally,
}

impl InstanceCounters {
    /// An attempt has ended, with an answer or like this.
    pub(crate) fn attempted(&self, duration: Duration, error: Option<ErrorKind>) {
        self.attempts.ended(duration, error.map_or(CallOutcome::Answered, CallOutcome::Failed));
    }

    /// An attempt is over that carried this.
    pub(crate) fn carried(&self, carried: &Carried) {
        add(&self.carried[0], carried.sent());
        add(&self.carried[1], carried.received());
    }

    /// A probe has ended that called the canary with this success, or did not call it.
    pub(crate) fn canary_called(&self, passed: Option<bool>) {
        if let Some(passed) = passed {
            add(&self.canary[usize::from(passed)], 1);
        }
    }

    /// An attempt that was counted already brought the answer that the tool failed.
    pub(crate) fn tool_failed(&self) {
        add(&self.attempts.tool_errors, 1);
    }

    /// A probe has ended.
    pub(crate) fn probed(&self, outcome: ProbeOutcome) {
        let place = PROBES.iter().position(|known| known.as_str() == outcome.as_str());
        if let Some(counter) = place.and_then(|place| self.probes.get(place)) {
            add(counter, 1);
        }
    }

    pub(crate) fn snapshot(&self) -> InstanceStatistics {
        let counted =
            PROBES.iter().zip(&self.probes).map(|(outcome, count)| (outcome.as_str().to_owned(), read(count)));
        let [canary_failures, canary_passes] = [&self.canary[0], &self.canary[1]].map(read);
        InstanceStatistics {
            attempts: self.attempts.snapshot(),
            bytes_sent: read(&self.carried[0]),
            bytes_received: read(&self.carried[1]),
            probes: counted.collect(),
            canary_passes,
            canary_failures,
        }
    }
}

#[cfg(test)]
#[path = "statistics_tests.rs"]
mod tests;
