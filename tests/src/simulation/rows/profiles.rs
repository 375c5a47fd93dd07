//! T9: for which share of the time what is reported is what is true, by profile.

use std::time::Duration;

use machina_core::testing::simulation::bounds;
use machina_core::testing::{Behaviour, Random};
use tokio::time::Instant;

use super::super::fleet::{Fleet, config};
use super::super::{Row, paused};
use super::Size;

/// What goes wrong in a profile.
struct Profile {
    name: &'static str,
    /// The mean time between two faults of an instance, and how long each lasts.
    between: Duration,
    lasts: Duration,
    kinds: &'static [Behaviour],
    target: f64,
    /// Instances and virtual time, shortened and in full.
    short: (usize, Duration),
    long: (usize, Duration),
}

const HOUR: Duration = Duration::from_secs(3600);
const KILLED: &[Behaviour] = &[Behaviour::Killed];
const MIXED: &[Behaviour] = &[Behaviour::Killed, Behaviour::BlackHole, Behaviour::Wedged];

const PROFILES: [Profile; 4] = [
    Profile {
        name: "P1",
        between: Duration::from_secs(24 * 3600),
        lasts: Duration::from_secs(300),
        kinds: KILLED,
        target: 99.97,
        short: (60, Duration::from_secs(3 * 3600)),
        long: (500, Duration::from_secs(24 * 3600)),
    },
    Profile {
        name: "P2",
        between: HOUR,
        lasts: Duration::from_secs(120),
        kinds: KILLED,
        target: 99.6,
        short: (40, HOUR),
        long: (500, Duration::from_secs(10 * 3600)),
    },
    Profile {
        name: "P3",
        between: Duration::from_secs(600),
        lasts: Duration::from_secs(120),
        kinds: KILLED,
        target: 99.6,
        short: (40, Duration::from_secs(1800)),
        long: (500, Duration::from_secs(5 * 3600)),
    },
    Profile {
        name: "P4",
        between: Duration::from_secs(600),
        lasts: Duration::from_secs(120),
        kinds: MIXED,
        target: 98.2,
        short: (40, Duration::from_secs(1800)),
        long: (500, Duration::from_secs(5 * 3600)),
    },
];

/// A change of what is true of an instance.
#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Duration,
    place: usize,
    behaviour: Behaviour,
}

/// What happens to all instances within `time`, in order.
fn story(profile: &Profile, seed: u64, instances: usize, time: Duration) -> Vec<Turn> {
    let luck = Random::seeded(seed);
    let mut turns = Vec::new();
    for place in 0..instances {
        let mut at = profile.between.mul_f64(luck.exponential());
        while at < time {
            let behaviour = profile.kinds[luck.below(profile.kinds.len())];
            turns.push(Turn { at, place, behaviour });
            at += profile.lasts;
            turns.push(Turn { at, place, behaviour: Behaviour::Up });
            at += profile.between.mul_f64(luck.exponential());
        }
    }
    turns.sort_by_key(|turn| (turn.at, turn.place));
    turns
}

/// Seconds that were seen, that were right, and the same where things had been
/// as they are for as long as finding that out may take.
#[derive(Debug, Default)]
struct Agreement {
    all: f64,
    right: f64,
    settled: f64,
    settled_right: f64,
    /// How long it took to find out of a fault, one by one.
    found: Vec<f64>,
}

impl Agreement {
    /// The mean time in which a fault was found.
    #[allow(clippy::cast_precision_loss, reason = "a mean")]
    fn mean_found(&self) -> f64 {
        self.found.iter().sum::<f64>() / self.found.len().max(1) as f64
    }
}

/// Compares what was reported of an instance with what was true of it.
fn compare(
    agreement: &mut Agreement,
    truth: &[(Duration, Behaviour)],
    reported: &[(Duration, bool)],
    end: Duration,
    allowed: impl Fn(Behaviour, usize) -> Duration,
) {
    for (at, _) in truth.iter().filter(|(_, behaviour)| *behaviour != Behaviour::Up) {
        let found = reported.iter().find(|(seen, up)| seen >= at && !up);
        agreement.found.extend(found.map(|(seen, _)| (*seen - *at).as_secs_f64()));
    }
    let mut marks: Vec<Duration> = truth.iter().map(|(at, _)| *at).chain(reported.iter().map(|(at, _)| *at)).collect();
    let mut ups = 0;
    let settles: Vec<Duration> = truth
        .iter()
        .map(|(at, behaviour)| {
            ups += usize::from(*behaviour == Behaviour::Up);
            *at + allowed(*behaviour, ups)
        })
        .collect();
    marks.extend(&settles);
    marks.extend([Duration::ZERO, end]);
    marks.retain(|mark| *mark <= end);
    marks.sort_unstable();
    for pair in marks.windows(2) {
        let length = (pair[1] - pair[0]).as_secs_f64();
        let last = truth.iter().rposition(|(at, _)| *at <= pair[0]);
        let up = last.is_none_or(|last| truth[last].1 == Behaviour::Up);
        let said = reported.iter().rev().find(|(at, _)| *at <= pair[0]).is_none_or(|(_, up)| *up);
        let settled = last.is_none_or(|last| settles[last] <= pair[0]);
        agreement.all += length;
        agreement.right += if up == said { length } else { 0.0 };
        if settled {
            agreement.settled += length;
            agreement.settled_right += if up == said { length } else { 0.0 };
        }
    }
}

fn measure(profile: &Profile, seed: u64, size: Size) -> Vec<Row> {
    let (count, time) = size.of(profile.short, profile.long);
    paused(async {
        let fleet = Fleet::open(seed, count / 5, 5, config(), |_| {}).await;
        fleet.forget();
        let begun = Instant::now();
        let turns = story(profile, seed, count, time);
        for turn in &turns {
            tokio::time::sleep_until(begun + turn.at).await;
            fleet.sims.set(&fleet.instances[turn.place], turn.behaviour);
        }
        tokio::time::sleep_until(begun + time).await;
        let parameters = fleet.parameters;
        let allowed = |behaviour: Behaviour, ups: usize| match behaviour {
            // One that has been down so often may flap by then.
            Behaviour::Up if ups > parameters.flap_threshold as usize => bounds::flapping_recovery(&parameters),
            Behaviour::Up => bounds::recovery(&parameters),
            Behaviour::Killed => bounds::signalled(),
            _ => bounds::black_hole(&parameters),
        };
        let mut agreement = Agreement::default();
        for place in 0..count {
            let truth: Vec<_> =
                turns.iter().filter(|turn| turn.place == place).map(|turn| (turn.at, turn.behaviour)).collect();
            let reported: Vec<_> = fleet.seen(|seen| {
                let changes = seen.changes.iter().filter(|change| change.place == place);
                changes.map(|change| (change.at - begun, change.to.is_up())).collect()
            });
            compare(&mut agreement, &truth, &reported, time, allowed);
        }
        fleet.close().await;
        let right = 100.0 * agreement.right / agreement.all;
        let settled = 100.0 * agreement.settled_right / agreement.settled;
        let faults = turns.len() / 2;
        let how = format!(
            "seed {seed}, whole registry, {count} instances for {time:?}, {faults} faults of {:?} each{}",
            profile.lasts,
            if profile.kinds.len() > 1 { ", a third each killed, black-holed and wedged" } else { ", killed" }
        );
        vec![
            Row {
                name: "T9",
                figure: format!(
                    "{}: {right:.3} % agreement, a fault found after {:.1} s on average",
                    profile.name,
                    agreement.mean_found()
                ),
                target: format!("≥ {} %", profile.target),
                met: right >= profile.target && faults > 0,
                how: how.clone(),
            },
            Row {
                name: "T9",
                figure: format!("{}: {settled:.4} % once settled", profile.name),
                target: "100 %".to_owned(),
                met: agreement.settled - agreement.settled_right < 1e-6,
                how,
            },
        ]
    })
}

/// The accuracy in the profile at `INDEX`.
pub(super) fn accuracy<const INDEX: usize>(seed: u64, size: Size) -> Vec<Row> {
    measure(&PROFILES[INDEX], seed, size)
}
