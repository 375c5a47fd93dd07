//! Calls at a given rate, whatever becomes of them, and what became of each. Calls
//! do not wait for each other: a registry that stalls is not spared. Takes no more
//! memory the longer it lasts than a byte for each call, and that at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machina_core::{CallOptions, Error, ErrorKind, InstanceId, Machina, Outcome, Phase, Tasks};
use machina_tests::call;
use machina_tests::farm::Class;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::histogram::Histogram;
use crate::random::Random;

/// How often a second calls are begun.
const STROKES: u32 = 100;
/// How many calls may be under way; beyond, the load itself is at its end.
const UNDER_WAY_MAX: usize = 20_000;
/// How long calls may go on after the last one was begun.
const LAST_ANSWERS: Duration = Duration::from_secs(90);
/// How many failures are kept with all that is known of them; more are counted.
const FAILURES_MAX: usize = 20_000;

/// What is called, how, and how often.
#[derive(Clone)]
pub(crate) struct Plan {
    /// The services.
    pub(crate) services: Vec<String>,
    /// Calls per second.
    pub(crate) rate: u32,
    /// How often which class of tool is called, by weight.
    pub(crate) mix: Vec<(Class, usize)>,
    /// How long a tool takes, at least and at most.
    pub(crate) takes: (Duration, Duration),
    pub(crate) seed: u64,
}

/// How many calls of each class, of a hundred: mixed as a host would.
pub(crate) const MIX: [(Class, usize); 4] =
    [(Class::ReadOnly, 40), (Class::Idempotent, 20), (Class::Keyed, 10), (Class::NotRepeatable, 30)];

/// A call that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) number: usize,
    pub(crate) class: Class,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    pub(crate) kind: ErrorKind,
    pub(crate) phase: Option<Phase>,
    pub(crate) outcome: Option<Outcome>,
    /// The instance of the last attempt.
    pub(crate) instance: Option<InstanceId>,
    pub(crate) message: String,
}

/// What is known of a call when all is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fate {
    /// It was never begun, or never ended.
    None,
    Answered,
    Failed,
}

/// Everything that became of a load.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    prefix: String,
    /// Of each call, by its number.
    pub(crate) fates: Vec<Fate>,
    /// Of the answers, by class.
    times: BTreeMap<Class, Histogram>,
    /// How many were answered only after another attempt.
    pub(crate) repeated: usize,
    pub(crate) failures: Vec<Failed>,
    /// Failures of each class, kept or not.
    failed: BTreeMap<Class, usize>,
    /// Calls that were not begun because too many were under way.
    pub(crate) not_begun: usize,
}

/// Offers `plan` for `lasting`, and waits for what becomes of it.
pub(crate) async fn offer(machina: &Machina, plan: &Plan, lasting: Duration) -> Tally {
    let tasks = Tasks::new();
    let strokes = u32::try_from(lasting.as_millis()).unwrap_or(u32::MAX) / (1000 / STROKES);
    let due_at = |stroke: u32| usize::try_from(u64::from(plan.rate) * u64::from(stroke) / u64::from(STROKES));
    let all = due_at(strokes).unwrap_or(usize::MAX);
    let tally = Arc::new(Mutex::new(Tally::new(plan, all)));
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut random = Random::new(plan.seed);
    let (started, mut begun) = (Instant::now(), 0);
    for stroke in 1..=strokes {
        while begun < due_at(stroke).unwrap_or(usize::MAX) {
            let one = One::draw(plan, begun, &mut random);
            begun += 1;
            if under_way.fetch_add(1, Ordering::AcqRel) >= UNDER_WAY_MAX {
                under_way.fetch_sub(1, Ordering::AcqRel);
                lock(&tally).not_begun += 1;
                continue;
            }
            let (machina, tally, under_way) = (machina.clone(), Arc::clone(&tally), Arc::clone(&under_way));
            tasks.spawn("call", async move {
                one.make(&machina, &tally).await;
                under_way.fetch_sub(1, Ordering::AcqRel);
            });
        }
        sleep_until(started + Duration::from_secs(1) / STROKES * stroke).await;
    }
    tasks.finish(LAST_ANSWERS).await;
    std::mem::take(&mut *lock(&tally))
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One call that is to be made.
struct One {
    number: usize,
    id: String,
    service: String,
    class: Class,
    ms: u64,
}

impl One {
    fn draw(plan: &Plan, number: usize, random: &mut Random) -> Self {
        let service = plan.services[random.below(plan.services.len())].clone();
        let takes = random.between(plan.takes.0, plan.takes.1);
        let ms = u64::try_from(takes.as_millis()).unwrap_or_default();
        Self { number, id: format!("{}{number}", prefix(plan)), service, class: random.pick(&plan.mix), ms }
    }

    async fn make(self, machina: &Machina, tally: &Mutex<Tally>) {
        let Self { number, id, service, class, ms } = self;
        let request = call(&service, class.tool(), json!({"id": id, "ms": ms}));
        let idempotency_key = (class == Class::Keyed).then_some(id);
        let options = CallOptions { idempotency_key, ..CallOptions::default() };
        let began = Instant::now();
        let outcome = machina.call(&request, &options).await;
        let took = began.elapsed();
        let mut tally = lock(tally);
        match outcome {
            Ok(report) => tally.answered(number, class, took, report.attempts.len()),
            Err(error) => tally.failed(failure((number, class), began, took, &error)),
        }
    }
}

fn prefix(plan: &Plan) -> String {
    format!("call-{}-", plan.seed)
}

fn failure((number, class): (usize, Class), began: Instant, took: Duration, error: &Error) -> Failed {
    let context = error.context();
    Failed {
        number,
        class,
        began,
        took,
        kind: error.kind(),
        phase: context.phase,
        outcome: context.outcome,
        instance: context.instance.as_deref().and_then(|id| id.parse().ok()),
        message: error.message().to_owned(),
    }
}

impl Tally {
    fn new(plan: &Plan, calls: usize) -> Self {
        let mut fates = vec![Fate::Failed; calls];
        // Written, so that its memory is taken now and does not grow later.
        fates.fill(Fate::None);
        let times = Class::ALL.into_iter().map(|class| (class, Histogram::default())).collect();
        Self { prefix: prefix(plan), fates, times, ..Self::default() }
    }

    fn answered(&mut self, number: usize, class: Class, took: Duration, attempts: usize) {
        self.fates[number] = Fate::Answered;
        self.repeated += usize::from(attempts > 1);
        self.times.entry(class).or_default().add(took);
    }

    fn failed(&mut self, failed: Failed) {
        self.fates[failed.number] = Fate::Failed;
        *self.failed.entry(failed.class).or_default() += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(failed);
        }
    }

    /// The id under which the farm counts the call with this number.
    pub(crate) fn id(&self, number: usize) -> String {
        format!("{}{number}", self.prefix)
    }

    /// How many were to be begun.
    pub(crate) fn offered(&self) -> usize {
        self.fates.len()
    }

    /// How many were answered.
    pub(crate) fn answers(&self) -> usize {
        self.fates.iter().filter(|fate| **fate == Fate::Answered).count()
    }

    /// How many were neither answered nor failed.
    pub(crate) fn unended(&self) -> usize {
        self.fates.iter().filter(|fate| **fate == Fate::None).count()
    }

    /// How many failed of those classes that `wanted` takes.
    pub(crate) fn failed_of(&self, wanted: impl Fn(Class) -> bool) -> usize {
        self.failed.iter().filter(|(class, _)| wanted(**class)).map(|(_, count)| count).sum()
    }

    /// How many ended of those classes that `wanted` takes.
    pub(crate) fn ended_of(&self, wanted: impl Fn(Class) -> bool) -> usize {
        let answered = self.times.iter().filter(|(class, _)| wanted(**class)).map(|(_, times)| times.count());
        self.failed_of(&wanted) + usize::try_from(answered.sum::<u64>()).unwrap_or(usize::MAX)
    }

    /// How long the answers of a class took.
    pub(crate) fn times_of(&self, class: Class) -> Histogram {
        self.times.get(&class).cloned().unwrap_or_default()
    }

    /// How long all answers took.
    pub(crate) fn times(&self) -> Histogram {
        self.times.values().fold(Histogram::default(), Histogram::with)
    }

    /// One line for each kind of failure: class, kind, phase, how many, and one of them.
    pub(crate) fn kinds(&self) -> Vec<String> {
        let mut kinds: BTreeMap<String, (usize, &str)> = BTreeMap::new();
        for failed in &self.failures {
            let key = format!("{:?} {} {:?} {:?}", failed.class, failed.kind.code(), failed.phase, failed.outcome);
            kinds.entry(key).or_insert((0, &failed.message)).0 += 1;
        }
        kinds.into_iter().map(|(kind, (count, message))| format!("failed: {count} × {kind}: {message}")).collect()
    }

    /// What was offered, answered and how fast.
    pub(crate) fn summary(&self) -> String {
        format!(
            "offered {}, answered {} ({} after another attempt), failed {}, never ended {}; {}",
            self.offered(),
            self.answers(),
            self.repeated,
            self.failed_of(|_| true),
            self.unended(),
            self.times(),
        )
    }
}
