//! T10: many services with three instances each, of which some are killed all the
//! time, under a load of calls of which some must never be repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use machina_core::{Config, Outcome, RoutingPolicy, Tasks};
use machina_tests::farm::{Class, Executed};

use crate::Scale;
use crate::faults::{Detection, Dying, Kill, kill_and_revive};
use crate::fleet::{Fleet, Found, name};
use crate::load::{Fate, MIX, Plan, Tally, offer};
use crate::report::Row;
use crate::samples::Sample;

const PER_SERVICE: usize = 3;
/// How long tools take: long enough for some to be in flight when an instance dies.
const TAKES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));
/// How much longer the load lasts than the killing, so that its end is seen too.
const EPILOGUE: Duration = Duration::from_secs(2);

/// The size of a run.
pub(crate) struct Size {
    pub(crate) services: usize,
    pub(crate) rate: u32,
    pub(crate) lasting: Duration,
    pub(crate) dying: Dying,
    pub(crate) config: Config,
    pub(crate) policy: RoutingPolicy,
}

impl Size {
    /// The size that is asked for; short ones have shorter intervals, so that every
    /// kind of death is found while they last.
    pub(crate) fn of(scale: &Scale) -> Self {
        let seconds = |seconds: u64| Duration::from_secs(seconds);
        let mut config = Config::default();
        let mut policy = RoutingPolicy { trust_annotations: Some(true), ..RoutingPolicy::default() };
        let dying = |percent_per_minute, until, down: (u64, u64), recovery| Dying {
            percent_per_minute,
            until: seconds(until),
            down: (seconds(down.0), seconds(down.1)),
            recovery: seconds(recovery),
            seed: scale.seed,
        };
        let (services, rate, lasting, dying) = match scale.short {
            false => (1000, 500, 600, dying(10, 600, (60, 120), 15)),
            true => {
                config.health.interval = seconds(2);
                config.health.fast_interval = Duration::from_millis(200);
                config.health.timeout = Duration::from_millis(300);
                config.health.confirm_timeout = Duration::from_millis(300);
                config.health.confirm_delay = Duration::from_millis(100);
                config.health.passive_window = seconds(1);
                // Whoever is called and hangs stays so until the call's time is up, which a
                // machine that has other things to do does not use up.
                policy.timeout = Some(seconds(30));
                (60, 150, 41, dying(120, 9, (31, 32), 4))
            }
        };
        let lasting = scale.lasting.unwrap_or(seconds(lasting));
        let dying = if scale.short { dying } else { Dying { until: lasting, ..dying } };
        Self {
            services: scale.services.unwrap_or(services),
            rate: scale.rate.unwrap_or(rate),
            lasting,
            dying,
            config,
            policy,
        }
    }
}

/// What a run came to.
pub(crate) struct Outcomes {
    tally: Tally,
    kills: Vec<Kill>,
    found: Vec<Found>,
    executed: std::collections::HashMap<String, Executed>,
    /// Of each failed call that must not be repeated: how its instance had died, and
    /// whether the call was in flight then.
    others: BTreeMap<&'static str, (usize, usize)>,
}

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let size = Size::of(scale);
    let fleet = start(&size).await;
    let before = Sample::now();
    let outcomes = endure(&fleet, &size, scale.seed).await;
    let after = Sample::now();
    let mut row = outcomes.row();
    row.details.insert(0, described(&size, scale.seed));
    row.details.push(format!("this process before: {before}; after: {after}"));
    fleet.machina.close().await;
    row
}

fn described(size: &Size, seed: u64) -> String {
    let Size { services, rate, lasting, dying, config, .. } = size;
    let Dying { percent_per_minute, until, down: (least, most), recovery, .. } = dying;
    format!(
        "{services} services × {PER_SERVICE} instances, {rate} calls/s for {lasting:?}; tools take {:?} to {:?}; probes \
         every {:?}; {percent_per_minute} % of the instances killed a minute, for {until:?} (50 % refuse, 20 % hang, \
         10 % execute and never answer, 20 % reset in the response), down {least:?} to {most:?}, never the last that \
         has been good for {recovery:?}; seed {seed}",
        TAKES.0, TAKES.1, config.health.interval,
    )
}

/// The services, registered and healthy.
pub(crate) async fn start(size: &Size) -> Fleet {
    let place = |service: usize, nth: usize| service * PER_SERVICE + nth;
    Fleet::start((size.services, PER_SERVICE), &[], size.config.clone(), &size.policy, place).await
}

/// Offers the load while instances die.
pub(crate) async fn endure(fleet: &Fleet, size: &Size, seed: u64) -> Outcomes {
    let tasks = Tasks::new();
    let findings = fleet.watch(&tasks);
    let plan = Plan {
        services: (0..size.services).map(name).collect(),
        rate: size.rate,
        mix: MIX.to_vec(),
        takes: TAKES,
        seed,
    };
    let killing = kill_and_revive(fleet, &size.dying, size.lasting);
    let load = Box::pin(offer(&fleet.machina, &plan, size.lasting + EPILOGUE));
    let (tally, kills) = tokio::join!(load, killing);
    tasks.close(Duration::from_secs(1)).await;
    let found = std::mem::take(&mut *findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let executed = fleet.farm.executions().await;
    let others = others(fleet, &tally, &kills);
    Outcomes { tally, kills, found, executed, others }
}

/// The failed calls that must not be repeated, by how their instance had died: all,
/// and those that had begun before.
fn others(fleet: &Fleet, tally: &Tally, kills: &[Kill]) -> BTreeMap<&'static str, (usize, usize)> {
    let mut others: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for failed in tally.failures.iter().filter(|failed| !failed.class.is_repeatable()) {
        let number = failed.instance.and_then(|id| fleet.number(id));
        let ended = failed.began + failed.took;
        let kill = kills.iter().rfind(|kill| Some(kill.instance) == number && kill.at <= ended);
        let count = others.entry(kill.map_or("alive", Kill::word)).or_default();
        count.0 += 1;
        count.1 += usize::from(kill.is_some_and(|kill| failed.began <= kill.at));
    }
    others
}

impl Outcomes {
    fn times(&self, number: usize) -> u32 {
        self.executed.get(&self.tally.id(number)).map_or(0, |executed| executed.times)
    }

    /// Calls that were executed more often than they may be.
    fn doubles(&self) -> usize {
        let twice = |executed: &&Executed| !executed.class.is_repeatable() && executed.times > 1;
        self.executed.values().filter(twice).count()
    }

    /// Calls of which Machina says what is not true.
    fn lies(&self) -> Vec<String> {
        let answered = self.tally.fates.iter().enumerate().filter(|(_, fate)| **fate == Fate::Answered);
        let never = answered.map(|(number, _)| number).filter(|number| self.times(*number) == 0);
        let never = never.map(|number| format!("call {number} is said to be answered and never ran"));
        let wrong = self.tally.failures.iter().filter_map(|failed| {
            let times = self.times(failed.number);
            let wrong = match failed.outcome {
                Some(Outcome::NotExecuted) => times > 0,
                Some(Outcome::Executed) => times == 0,
                _ => false,
            };
            wrong.then(|| format!("{failed:?} ran {times} times"))
        });
        never.chain(wrong).collect()
    }

    fn repeatable_failed(&self) -> usize {
        self.tally.failed_of(Class::is_repeatable)
    }

    /// The share of repeatable calls that were answered, in percent.
    pub(crate) fn repeatable_percent(&self) -> f64 {
        let all = self.tally.ended_of(Class::is_repeatable);
        percent(all - self.repeatable_failed(), all)
    }

    /// The share of all calls that were answered, in percent.
    pub(crate) fn answered_percent(&self) -> f64 {
        percent(self.tally.answers(), self.tally.offered())
    }

    /// What must never be, whatever else goes on.
    pub(crate) fn never(&self) -> Vec<String> {
        let doubles = self.doubles();
        let mut never: Vec<_> =
            (doubles > 0).then(|| format!("{doubles} calls were executed twice")).into_iter().collect();
        never.extend(self.lies().into_iter().take(5));
        if self.tally.unended() > 0 {
            let (unended, not_begun) = (self.tally.unended(), self.tally.not_begun);
            never.push(format!("{unended} calls never ended, {not_begun} of which could not be begun"));
        }
        never
    }

    pub(crate) fn row(&self) -> Row {
        let (doubles, repeatable) = (self.doubles(), self.repeatable_failed());
        let failed = self.tally.failed_of(|class| !class.is_repeatable());
        let in_flight: u32 = self.kills.iter().map(|kill| kill.in_flight).sum();
        let detection = Detection::of(&self.kills, &self.found);
        let mut broken = self.never();
        if repeatable > 0 {
            broken.push(format!("{repeatable} repeatable calls failed"));
        }
        if self.tally.repeated == 0 {
            broken.push("no call met a dead instance: this run shows nothing".to_owned());
        }
        Row {
            name: "T10",
            figure: format!(
                "repeatable failed {repeatable}, others failed {failed} (in flight at the kills {in_flight}), executed \
                 twice {doubles}, answered {:.4} % of {}, {} kills",
                self.answered_percent(),
                self.tally.offered(),
                self.kills.len(),
            ),
            target: "repeatable 0, others ≤ in flight at the kill, twice 0",
            met: broken.is_empty() && failed <= in_flight as usize,
            broken,
            details: self.details(&detection),
        }
    }

    fn details(&self, detection: &Detection) -> Vec<String> {
        let mut details = vec![self.tally.summary()];
        for class in Class::ALL {
            let again = self.executed.values().filter(|executed| executed.class == class && executed.times > 1).count();
            details.push(format!(
                "{class:?}: {} ended, failed {}, executed more than once {again}; {}",
                self.tally.ended_of(|of| of == class),
                self.tally.failed_of(|of| of == class),
                self.tally.times_of(class),
            ));
        }
        details.extend(self.tally.kinds());
        for way in ["refuse", "hang", "mute", "reset"] {
            let kills = self.kills.iter().filter(|kill| kill.word() == way);
            let in_flight: u32 = kills.clone().map(|kill| kill.in_flight).sum();
            let (all, before) = self.others.get(way).copied().unwrap_or_default();
            details.push(format!(
                "killed: {way} {}, others in flight {in_flight}, others failed {all}, of which begun before the kill \
                 {before}",
                kills.count(),
            ));
        }
        details.extend(detection.lines());
        details.push(format!("found unhealthy though good: {}", detection.false_unhealthy));
        details
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    100.0 * count(part) / count(whole.max(1))
}
