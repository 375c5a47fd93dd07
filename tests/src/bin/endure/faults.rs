//! Instances of a farm are killed at random and come back, each in one of the
//! ways that processes and networks fail; never the last good one of a service.

use std::collections::BTreeMap;
use std::time::Duration;

use machina_tests::farm::{Behaviour, Class, Order};
use tokio::time::{Instant, sleep};

use crate::fleet::{Fleet, Found};
use crate::random::Random;
use crate::report::spread;

/// How often it is looked who dies and who comes back.
const STROKE: Duration = Duration::from_millis(100);
/// The most bytes of a response after which one is reset.
const RESET_BYTES: usize = 400;
/// How long after an instance came back evidence of its death may still arrive:
/// one attempt of a probe and its confirmation, at the defaults.
const LATE_EVIDENCE: Duration = Duration::from_secs(9);

/// How fast instances die.
#[derive(Debug, Clone)]
pub(crate) struct Dying {
    /// How many of all, in percent, a minute.
    pub(crate) percent_per_minute: u32,
    /// When the last of them dies.
    pub(crate) until: Duration,
    /// How long each is down, at least and at most.
    pub(crate) down: (Duration, Duration),
    /// How long one that came back counts as not yet good: until then, another one
    /// of its service is the last good one.
    pub(crate) recovery: Duration,
    pub(crate) seed: u64,
}

/// One death.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    pub(crate) instance: usize,
    pub(crate) how: Behaviour,
    pub(crate) at: Instant,
    /// When it came back.
    pub(crate) until: Option<Instant>,
    /// How many calls that must not be repeated it had in flight.
    pub(crate) in_flight: u32,
}

impl Kill {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// The word for how it died.
    pub(crate) const fn word(&self) -> &'static str {
        match self.how {
            Behaviour::Refuse => "refuse",
            Behaviour::Hang => "hang",
            Behaviour::Mute => "mute",
            _ => "reset",
        }
    }
}

/// Kills and revives for `lasting`, then revives all; returns every death.
pub(crate) async fn kill_and_revive(fleet: &Fleet, dying: &Dying, lasting: Duration) -> Vec<Kill> {
    let mut random = Random::new(dying.seed);
    let mut kills: Vec<Kill> = Vec::new();
    let mut dead: BTreeMap<usize, (usize, Instant)> = BTreeMap::new();
    let mut good_since: Vec<Option<Instant>> = vec![None; fleet.instances()];
    let (started, per_second) = (Instant::now(), f64::from(dying.percent_per_minute) / 100.0 / 60.0);
    let mut killed = 0_u32;
    loop {
        let now = Instant::now();
        let over = now - started >= lasting;
        let back = dead.iter().filter(|(_, (_, until))| over || *until <= now).map(|(instance, _)| *instance);
        let back: Vec<usize> = back.collect();
        let mut orders: Vec<Order> =
            back.iter().map(|instance| Order { instance: *instance, behaviour: Behaviour::Good }).collect();
        for instance in back {
            let (kill, _) = dead.remove(&instance).expect("it was found there");
            kills[kill].until = Some(now);
            good_since[instance] = Some(now);
        }
        let fleet_size = u32::try_from(fleet.instances()).unwrap_or(u32::MAX);
        let due = (now - started).min(dying.until).as_secs_f64() * per_second * f64::from(fleet_size);
        let first = (kills.len(), orders.len());
        while !over && f64::from(killed) < due {
            killed += 1;
            let Some(instance) = victim(fleet, dying, &dead, &good_since, now, &mut random) else { continue };
            let how = way_to_die(&mut random);
            let until = now + random.between(dying.down.0, dying.down.1);
            dead.insert(instance, (kills.len(), until));
            kills.push(Kill { instance, how, at: now, until: None, in_flight: 0 });
            orders.push(Order { instance, behaviour: how });
        }
        if !orders.is_empty() {
            let in_flight = fleet.farm.order(&orders).await;
            for (kill, in_flight) in kills[first.0..].iter_mut().zip(&in_flight[first.1..]) {
                kill.in_flight = in_flight.get(&Class::NotRepeatable).copied().unwrap_or_default();
            }
        }
        if over {
            return kills;
        }
        sleep(STROKE).await;
    }
}

fn way_to_die(random: &mut Random) -> Behaviour {
    let ways = [
        (Behaviour::Refuse, 50),
        (Behaviour::Hang, 20),
        (Behaviour::Mute, 10),
        (Behaviour::Reset { after: random.below(RESET_BYTES) }, 20),
    ];
    random.pick(&ways)
}

/// One that lives, and is not the last good one of its service.
fn victim(
    fleet: &Fleet,
    dying: &Dying,
    dead: &BTreeMap<usize, (usize, Instant)>,
    good_since: &[Option<Instant>],
    now: Instant,
    random: &mut Random,
) -> Option<usize> {
    let is_good = |instance: &usize| {
        !dead.contains_key(instance) && good_since[*instance].is_none_or(|since| now - since >= dying.recovery)
    };
    // A handful of draws finds one unless nearly all are down.
    (0..20).map(|_| random.below(fleet.instances())).find(|instance| {
        let service = instance / fleet.per_service * fleet.per_service;
        is_good(instance) && (service..service + fleet.per_service).filter(is_good).count() > 1
    })
}

/// What was found about the deaths.
#[derive(Debug, Default)]
pub(crate) struct Detection {
    /// How long it took, by how it died; those that were not found before they came back.
    by_way: BTreeMap<&'static str, (Vec<Duration>, usize)>,
    /// Instances that were called unhealthy and were not.
    pub(crate) false_unhealthy: usize,
}

impl Detection {
    /// Holds what was found against what happened.
    pub(crate) fn of(kills: &[Kill], found: &[Found]) -> Self {
        let mut detection = Self::default();
        for kill in kills {
            let found = found.iter().filter(|found| found.down && found.instance == kill.instance);
            let first = found.map(|found| found.at).find(|at| *at >= kill.at && !kill.is_over(*at));
            let (times, missed) = detection.by_way.entry(kill.word()).or_default();
            match first {
                Some(at) => times.push(at - kill.at),
                None => *missed += 1,
            }
        }
        let true_of = |found: &Found| {
            let mut of_it = kills.iter().filter(|kill| kill.instance == found.instance);
            of_it.any(|kill| kill.at <= found.at && kill.until.is_none_or(|until| found.at <= until + LATE_EVIDENCE))
        };
        detection.false_unhealthy = found.iter().filter(|found| found.down && !true_of(found)).count();
        detection
    }

    /// One line for each way to die.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(way, (times, missed)): (&&str, &(Vec<Duration>, usize))| {
            let all = times.len() + missed;
            format!("found: {way} {} of {all} before they came back; {}", times.len(), spread(times.clone()))
        };
        self.by_way.iter().map(line).collect()
    }
}
