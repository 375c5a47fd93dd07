//! What happens in a simulation, step by step, as a seed will have it. Knows
//! nothing of Machina: it only says what is done to it and to its instances.

use std::time::Duration;

use super::super::Behaviour;
use crate::model::AdminState;
use crate::random::Random;

/// One thing that is done. Services and instances are named by their place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// The service is registered, with all its instances, or removed.
    Register(usize),
    Deregister(usize),
    /// The instance is declared, or no longer.
    Declare(usize, bool),
    Behave(usize, Behaviour),
    Slow(usize, Duration),
    Loss(usize, f64),
    Failing(usize, f64),
    /// Its process ends.
    Exit(usize),
    /// It publishes other tools for a while, among them always `add` and `echo`.
    Retool(usize),
    /// It has no fault any more.
    Mend(usize),
    /// Nothing that Machina sends arrives anywhere, for so long.
    Outage(Duration),
    /// Machina itself stands still for so long.
    Stall(Duration),
    AdminService(usize, AdminState),
    AdminInstance(usize, AdminState),
    Call {
        service: usize,
        tool: &'static str,
        keyed: bool,
        patience: Duration,
    },
    /// Many calls of the same service at once.
    Burst {
        service: usize,
        calls: u32,
    },
}

/// One service of the simulation.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) instances: Vec<usize>,
    /// The operator believes what its tools say about themselves.
    pub(super) trusted: bool,
    pub(super) failure_threshold: Option<u32>,
    pub(super) interval: Option<Duration>,
}

/// The services and instances of a simulation, and what happens to them.
#[derive(Debug)]
pub(super) struct Plan {
    random: Random,
    pub(super) sites: Vec<Site>,
    /// Whether each instance is a child process.
    pub(super) stdio: Vec<bool>,
    /// How many faults there may be at a time.
    faults_max: usize,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let random = Random::seeded(seed);
        let mut stdio = Vec::new();
        let sites = (0..2 + random.below(4)).map(|_| {
            let instances = (0..1 + random.below(4)).map(|_| {
                stdio.push(random.chance(0.25));
                stdio.len() - 1
            });
            Site {
                instances: instances.collect(),
                trusted: random.chance(0.5),
                failure_threshold: random.chance(0.3).then(|| 1 + u32::try_from(random.below(5)).unwrap_or(0)),
                interval: random.chance(0.3).then(|| Duration::from_secs(5 + random.below(56) as u64)),
            }
        });
        let sites = sites.collect();
        let faults_max = if random.chance(0.5) { 1 } else { usize::MAX };
        Self { random, sites, stdio, faults_max }
    }

    /// What happens next, when `faulty` says which instances have a fault.
    pub(super) fn next(&self, faulty: &[bool]) -> Step {
        let random = &self.random;
        let (service, instance) = (random.below(self.sites.len()), random.below(self.stdio.len()));
        let ill = faulty.iter().filter(|faulty| **faulty).count();
        match random.below(100) {
            0..30 => self.call(service),
            30..34 => Step::Burst { service, calls: 1 + u32::try_from(random.below(40)).unwrap_or(0) },
            34..38 => Step::Register(service),
            38..40 => Step::Deregister(service),
            40..43 => Step::Declare(instance, random.chance(0.6)),
            43..51 => self.admin(service, instance),
            51..54 => Step::Retool(instance),
            54..56 if self.faults_max > 1 => Step::Outage(self.seconds(90)),
            56..58 => Step::Stall(self.seconds(60)),
            58..70 => Step::Mend(faulty.iter().position(|faulty| *faulty).unwrap_or(instance)),
            _ if ill >= self.faults_max => Step::Mend(faulty.iter().position(|faulty| *faulty).unwrap_or(instance)),
            _ => self.fault(instance),
        }
    }

    /// How long nothing is done then.
    pub(super) fn pause(&self) -> Duration {
        match self.random.below(10) {
            0..3 => Duration::from_millis(self.random.below(10) as u64),
            3..6 => Duration::from_millis(self.random.below(2_000) as u64),
            6..9 => self.seconds(15),
            _ => self.seconds(120),
        }
    }

    fn seconds(&self, most: usize) -> Duration {
        Duration::from_millis(1 + self.random.below(most * 1000) as u64)
    }

    fn call(&self, service: usize) -> Step {
        let random = &self.random;
        let tool = if random.chance(0.5) { "echo" } else { "add" };
        Step::Call { service, tool, keyed: random.chance(0.2), patience: self.seconds(20) }
    }

    fn admin(&self, service: usize, instance: usize) -> Step {
        const STATES: [AdminState; 8] = [
            AdminState::Enabled,
            AdminState::Enabled,
            AdminState::Enabled,
            AdminState::Enabled,
            AdminState::Draining,
            AdminState::Disabled,
            AdminState::Maintenance,
            AdminState::Quarantined,
        ];
        let state = STATES[self.random.below(STATES.len())];
        if self.random.chance(0.3) { Step::AdminService(service, state) } else { Step::AdminInstance(instance, state) }
    }

    fn fault(&self, instance: usize) -> Step {
        let random = &self.random;
        let behaviour = match random.below(16) {
            0..3 => Behaviour::Killed,
            3 => Behaviour::Refuse,
            4..6 => Behaviour::BlackHole,
            6..8 => Behaviour::Wedged,
            8 => Behaviour::Flap { period: self.seconds(60) },
            9 => Behaviour::LoseAnswers,
            10 => Behaviour::Status([401, 403, 429][random.below(3)]),
            11 => Behaviour::Busy,
            12 => return Step::Slow(instance, self.seconds(12)),
            13 => return Step::Loss(instance, random.unit()),
            14 => return Step::Failing(instance, random.unit()),
            _ => return Step::Exit(instance),
        };
        Step::Behave(instance, behaviour)
    }
}
