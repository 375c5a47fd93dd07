//! What is true of one simulated instance, whatever Machina thinks of it: what
//! was done to it, and what it answered to whom.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::{Behaviour, Contact, Ending};
use super::bounds;
use crate::error::{Error, ErrorKind, Phase};
use crate::health::HealthState;
use crate::model::HealthParameters;

/// An instance that answers within this time is well.
const PROMPT: Duration = Duration::from_secs(1);

/// How often an instance has gone down of late.
const DOWNS_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Truth {
    pub(super) name: String,
    pub(super) stdio: bool,
    pub(super) parameters: HealthParameters,
    /// Whether Machina is to look after it, and since when that is so.
    pub(super) owned: bool,
    pub(super) owned_since: Instant,
    /// Whether it may be called, and since when that is so.
    pub(super) admitted: bool,
    pub(super) admitted_since: Instant,
    /// Since when it answers everything promptly; not at all for `None`.
    pub(super) well_since: Option<Instant>,
    /// Since when it answers nothing.
    pub(super) gone_since: Option<Instant>,
    /// When it last was anything but well.
    pub(super) unwell_until: Option<Instant>,
    /// What it failed to answer since it last answered.
    pub(super) failures: u32,
    /// The longest such row that ended, and when.
    row: (u32, Instant),
    before_probe: u32,
    /// What it answered since it was last found to be down.
    pub(super) passes: u32,
    last_pass: Instant,
    last_failure: Instant,
    /// Whether its failures since it was last healthy were of the hard kind.
    pub(super) hard: bool,
    pub(super) probes: u32,
    /// How many of them look at what was declared here before.
    former_probes: u32,
    pub(super) contacts: u32,
    pub(super) last_contact: Instant,
    /// What Machina says, and since when.
    pub(super) state: HealthState,
    pub(super) state_since: Instant,
    pub(super) downs: VecDeque<Instant>,
}

impl Truth {
    pub(super) fn new(name: String, stdio: bool, parameters: HealthParameters) -> Self {
        let now = Instant::now();
        Self {
            name,
            stdio,
            parameters,
            owned: false,
            owned_since: now,
            admitted: false,
            admitted_since: now,
            well_since: Some(now),
            gone_since: None,
            unwell_until: None,
            failures: 0,
            row: (0, now),
            before_probe: 0,
            passes: 0,
            last_pass: now,
            last_failure: now,
            hard: false,
            probes: 0,
            former_probes: 0,
            contacts: 0,
            last_contact: now,
            state: HealthState::Unknown,
            state_since: now,
            downs: VecDeque::new(),
        }
    }

    /// It behaves like this from now on.
    pub(super) fn behaves(&mut self, behaviour: Behaviour, latency: Duration, mishaps: f64) {
        let now = Instant::now();
        let gone =
            matches!(behaviour, Behaviour::Killed | Behaviour::Refuse | Behaviour::BlackHole | Behaviour::Wedged);
        let answers = matches!(behaviour, Behaviour::Up | Behaviour::Status(_) | Behaviour::Busy);
        let well = answers && latency <= PROMPT && mishaps == 0.0;
        if self.well_since.is_none() || !well {
            self.unwell_until = Some(now);
        }
        self.well_since = if well { self.well_since.or(Some(now)) } else { None };
        self.gone_since = if gone { self.gone_since.or(Some(now)) } else { None };
        self.hard |= behaviour == Behaviour::Killed || matches!(behaviour, Behaviour::Flap { .. });
    }

    /// It, or Machina, stood still until now: what follows is counted from here.
    pub(super) fn interrupted(&mut self) {
        let now = Instant::now();
        self.last_contact = now;
        self.well_since = self.well_since.map(|_| now);
        self.gone_since = self.gone_since.map(|_| now);
        self.unwell_until = Some(now);
    }

    /// Machina has begun, or ceased, to look after it.
    pub(super) fn own(&mut self, owned: bool, admitted: bool) {
        let now = Instant::now();
        if self.owned != owned {
            (self.owned, self.owned_since, self.last_contact) = (owned, now, now);
            self.former_probes = self.probes;
        }
        if self.admitted != admitted {
            (self.admitted, self.admitted_since) = (admitted, now);
        }
    }

    /// Nothing is known of it any more: what was declared is gone.
    pub(super) fn forgotten(&mut self) {
        (self.state, self.state_since) = (HealthState::Unknown, Instant::now());
        self.downs.clear();
    }

    /// Machina says so.
    pub(super) fn reported(&mut self, state: HealthState) {
        let now = Instant::now();
        if state == HealthState::Unhealthy && self.state.is_up() {
            self.downs.push_back(now);
            if self.downs.len() > DOWNS_MAX {
                self.downs.pop_front();
            }
        }
        match state {
            HealthState::Healthy => self.hard = false,
            // What passed at this very moment may have done so after it.
            HealthState::Unhealthy if self.last_pass != now => self.passes = 0,
            _ => {}
        }
        (self.state, self.state_since) = (state, now);
    }

    pub(super) fn began(&mut self, contact: Contact) {
        self.contacts += 1;
        self.probes += u32::from(contact == Contact::Probe);
        self.last_contact = Instant::now();
    }

    /// Whether more than one probe looks at what is declared here now.
    pub(super) fn is_probed_twice(&self) -> bool {
        self.probes > self.former_probes + 1
    }

    pub(super) fn ended(&mut self, contact: Contact, began: Instant, ending: Ending<'_>) {
        self.contacts -= 1;
        if contact == Contact::Probe {
            self.probes -= 1;
            // Those that end first began first.
            self.former_probes = self.former_probes.saturating_sub(1);
        }
        self.last_contact = Instant::now();
        let (answered, hard) = match ending {
            Ending::Answered => (true, false),
            Ending::Failed(error) => (is_alive(error), error.context().hard),
            Ending::CutOff => (false, false),
        };
        self.hard |= hard;
        match (contact, answered) {
            // That a session opens shows nothing yet; a refusal of it that only the living give does.
            (Contact::Connect, true) if matches!(ending, Ending::Answered) => {}
            (Contact::List, true) => {}
            (Contact::List, false) => {
                // What the probe before it saw does not count.
                self.failed(self.before_probe + 1);
            }
            // A probe and a call may have waited for the same session.
            (Contact::Connect, false) => self.failed(2),
            (_, false) => self.failed(1),
            // Evidence from before a failure comes too late, and a probe begins before it is sent.
            (_, true) => {
                let late = self.last_failure + bounds::failed_probe(&self.parameters) >= began;
                self.passed(contact == Contact::Probe && late);
            }
        }
    }

    fn failed(&mut self, times: u32) {
        self.failures += times;
        self.last_failure = Instant::now();
    }

    fn passed(&mut self, late: bool) {
        self.passes += 1;
        self.last_pass = Instant::now();
        if late {
            return;
        }
        if self.failures > 0 {
            self.row = (self.failures, Instant::now());
        }
        self.before_probe = self.failures;
        self.failures = 0;
    }

    /// Failures in a row, also if that row ended at this very moment.
    pub(super) fn failures_by_now(&self) -> u32 {
        let (row, at) = self.row;
        if at == Instant::now() { self.failures.max(row) } else { self.failures }
    }

    /// Whether it went down more often within `window` than a steady one does.
    pub(super) fn may_flap(&self) -> bool {
        let horizon = self.parameters.flap_window + self.parameters.flap_hold;
        let recent = self.downs.iter().filter(|down| down.elapsed() < horizon).count();
        recent >= self.parameters.flap_threshold as usize
    }
}

/// Whether the error is one that only a living instance gives.
pub(super) fn is_alive(error: &Error) -> bool {
    let context = error.context();
    matches!(context.upstream_status, Some(401 | 403 | 429))
        || error.kind() == ErrorKind::Overloaded
        || context.phase == Some(Phase::Answered)
}
