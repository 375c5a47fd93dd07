//! A day of the journal of 10,000 services that are probed every 30 s: every entry
//! is appended, and old ones are removed as often as the registry removes them; only
//! the waiting between is left out. Prints how large the store becomes, and how much
//! of the day is spent on it.
//!
//! `cargo bench -p machina-benches --bench journal [-- HOURS [SERVICES]] [sqlite|postgresql] [trickle]`
//!
//! What comes between two removals is appended by instance, which takes a fraction of
//! the time and leaves the same rows. With `trickle` entries are appended
//! as the recorder appends them, a thousand at a time as they come: then the time is
//! that of a registry, too.

mod backing;

use std::time::Duration;

use backing::Backing;
use machina_benches::show;
use machina_core::{Backend, Entry, EntryKind, InstanceId, JournalConfig, JournalQuery, ServiceName, Timestamp, What};
use tokio::time::Instant;

/// How long the day is, and how many services there are, unless the command says otherwise.
const HOURS: u64 = 24;
const SERVICES: u64 = 10_000;
const INTERVAL: Duration = Duration::from_secs(30);
/// How often old entries are removed, as in the recorder.
const TRIM_EVERY: Duration = Duration::from_secs(600);
/// PostgreSQL cleans a table when a fifth of it was removed: after every other removal.
const REMOVALS_PER_CLEANING: u64 = 2;
/// How many entries the recorder appends at once.
const BATCH: usize = 1000;
/// How many are appended at once where time is short: more would only be in the log of SQLite.
const BULK: usize = 10_000;
/// One in so many probes fails, with a transition down and, at the next, up.
const FAILING: u64 = 1000;
const CALLS_PER_SECOND: u64 = 10;
const MIB: f64 = 1024.0 * 1024.0;
/// How many MiB the store may become, as `docs/benchmarks.md` states.
const TARGET: f64 = 512.0;

fn main() {
    let trickle = std::env::args().any(|argument| argument == "trickle");
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let (hours, services) = (numbers.next().unwrap_or(HOURS), numbers.next().unwrap_or(SERVICES));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
    let probes = services * hours * 3600 / INTERVAL.as_secs();
    show(&format!(
        "\nthe journal of {services} services of one instance, probed every {INTERVAL:?}, for {hours} h: {probes} probes, \
         one in {FAILING} fails; {CALLS_PER_SECOND} calls a second"
    ));
    show(&format!(
        "{:<12} {:>12} {:>12} {:>10} {:>12} {:>12} {:>14}",
        "", "appended", "kept", "samples", "bytes", "at most", "spent on it"
    ));
    let mut missed = Vec::new();
    let named = |backing: &Backing| std::env::args().any(|argument| argument.eq_ignore_ascii_case(backing.name));
    let all = backing::all();
    let some = all.iter().any(named);
    for backing in all.into_iter().filter(|backing| !some || named(backing)) {
        let most = runtime.block_on(day(&backing, hours, services, trickle)) as f64 / MIB;
        missed.extend((most > TARGET).then_some(backing.name));
    }
    show(&format!("target: at most {TARGET} MiB for {SERVICES} services, however long"));
    assert!(missed.is_empty(), "missed: {}", missed.join(", "));
}

/// The services of a day, and how far the day is.
struct Day {
    names: Vec<(ServiceName, InstanceId)>,
    now: Timestamp,
    pending: Vec<Entry>,
    /// Whether entries are appended as the recorder appends them.
    trickle: bool,
    appended: u64,
    /// How long appending and removing took.
    spent: Duration,
}

/// Goes through the day; returns how many bytes the store had at most.
async fn day(backing: &Backing, hours: u64, services: u64, trickle: bool) -> u64 {
    let backend = machina_store::open(&backing.url).await.expect("opens");
    let name = |number| format!("service-{number:05}").parse().expect("is a name");
    let names = (0..services).map(|number| (name(number), InstanceId::generate())).collect();
    let now = Timestamp::from_second(1_750_000_000).expect("is in range");
    let mut day = Day { names, now, pending: Vec::new(), trickle, appended: 0, spent: Duration::ZERO };
    let (rounds, config) = (hours * 3600 / INTERVAL.as_secs(), JournalConfig::default());
    let per_trim = TRIM_EVERY.as_secs() / INTERVAL.as_secs();
    let mut most = 0;
    for round in 0..rounds {
        day.probe_all(&backend, round).await;
        if round % per_trim == per_trim - 1 {
            day.append_by_instance(&backend).await;
            most = most.max(backing.bytes());
            day.trim(&backend, &config, services).await;
            if (round / per_trim) % REMOVALS_PER_CLEANING == REMOVALS_PER_CLEANING - 1 {
                backing.clean();
            }
        }
    }
    day.roll_up(&backend).await;
    let mut kept = 0;
    for kind in EntryKind::ALL {
        kept += count(&backend, *kind).await;
    }
    let samples = count(&backend, EntryKind::Sample).await;
    backend.store.close().await.expect("closes");
    let (bytes, share) = (backing.bytes(), day.spent.as_secs_f64() / (hours * 3600) as f64 * 100.0);
    let most = most.max(bytes);
    show(&format!(
        "{:<12} {:>12} {kept:>12} {samples:>10} {:>8.0} MiB {:>8.0} MiB {:>6.0} s, {share:.1} %",
        backing.name,
        day.appended,
        bytes as f64 / MIB,
        most as f64 / MIB,
        day.spent.as_secs_f64(),
    ));
    most
}

impl Day {
    /// Every instance is probed once, and some are called.
    async fn probe_all(&mut self, backend: &Backend, round: u64) {
        for index in 0..self.names.len() {
            let turn = (round + index as u64) % FAILING;
            self.add(backend, index, sample(turn == 0)).await;
            if turn < 2 {
                self.add(backend, index, transition(turn == 0)).await;
            }
        }
        for number in 0..CALLS_PER_SECOND * INTERVAL.as_secs() {
            let index = usize::try_from(number * 7919).unwrap_or_default() % self.names.len();
            self.add(backend, index, call()).await;
        }
        self.now += INTERVAL;
    }

    async fn roll_up(&mut self, backend: &Backend) {
        let durations = vec![0, 3, 120, 1400, 900, 300, 100, 40, 10, 5, 2, 0, 0, 0, 0, 0];
        for index in 0..self.names.len() {
            let since = self.now - Duration::from_secs(24 * 3600);
            let what = What::Rollup { since, passes: 2878, failures: 2, durations: durations.clone() };
            self.add(backend, index, what).await;
        }
        self.append(backend).await;
    }

    async fn add(&mut self, backend: &Backend, index: usize, what: What) {
        let (service, instance) = &self.names[index];
        self.pending.push(Entry { at: self.now, service: Some(service.clone()), instance: Some(*instance), what });
        if self.trickle && self.pending.len() == BATCH {
            self.append(backend).await;
        }
    }

    async fn append_by_instance(&mut self, backend: &Backend) {
        if !self.trickle {
            self.pending.sort_by_key(|entry| entry.instance);
            self.append(backend).await;
        }
    }

    async fn append(&mut self, backend: &Backend) {
        let began = Instant::now();
        for entries in self.pending.chunks(if self.trickle { BATCH } else { BULK }) {
            backend.journal.append(entries).await.expect("appends");
        }
        self.spent += began.elapsed();
        self.appended += self.pending.len() as u64;
        self.pending.clear();
    }

    async fn trim(&mut self, backend: &Backend, config: &JournalConfig, instances: u64) {
        let began = Instant::now();
        for kind in EntryKind::ALL {
            backend.journal.trim(*kind, config.retention(*kind, instances, self.now)).await.expect("removes");
        }
        self.spent += began.elapsed();
    }
}

fn sample(failed: bool) -> What {
    let outcome = if failed { "fail" } else { "pass" };
    let error = failed.then(|| "the connection was refused".to_owned());
    What::Sample { outcome: outcome.to_owned(), response_time_ms: Some(12.3456), error }
}

fn transition(down: bool) -> What {
    let (from, to) = if down { ("healthy", "suspect") } else { ("suspect", "healthy") };
    What::Transition { from: from.to_owned(), to: to.to_owned(), reason: "the connection was refused".to_owned() }
}

fn call() -> What {
    let (tool, principal) = ("search_messages".to_owned(), "system".to_owned());
    What::Call {
        tool,
        principal,
        duration_ms: 12.3456,
        attempts: 1,
        success: true,
        error: None,
        tried: Vec::new(),
        arguments: None,
    }
}

async fn count(backend: &Backend, kind: EntryKind) -> u64 {
    let mut query = JournalQuery { limit: 10_000, ..JournalQuery::of(kind) };
    let mut found = 0;
    loop {
        let page = backend.journal.read(&query).await.expect("reads");
        found += page.entries.len() as u64;
        query.before = page.next;
        if query.before.is_none() {
            return found;
        }
    }
}
