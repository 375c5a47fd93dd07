//! What must hold at every step of a simulation, as it is seen from outside: by
//! what Machina shows, and by what its instances know to be true.

use std::time::Duration;

use tokio::time::Instant;

use super::bounds;
use super::truth::Truth;
use super::world::World;
use crate::error::Result;
use crate::health::{HealthState, ReasonCode};
use crate::model::{AdminState, Endpoint};
use crate::route::Explanation;
use crate::view::ServiceView;

/// What a task may lag behind the moment at which it is due.
const SLACK: Duration = Duration::from_millis(100);

/// How long everything that is not measured here may take before a bound begins
/// to count: a probe in flight, its list.
const LIST: Duration = Duration::from_secs(30);

impl World {
    /// Holds the state of everything against the truth.
    pub(super) async fn check(&self) {
        for site in 0..self.services.len() {
            let declared = &self.services[site];
            match self.machina.get(&declared.name) {
                None if declared.registered => self.accuse(format!("{} is gone", declared.name)),
                Some(_) if !declared.registered => self.accuse(format!("{} is still there", declared.name)),
                Some(view) => {
                    self.check_admin(site, &view);
                    match self.machina.explain(&declared.name, Some("add")).await {
                        Ok(explanation) => self.check_pick(&view, &explanation),
                        Err(error) => self.accuse(format!("{} is not explained: {error}", declared.name)),
                    }
                }
                None => {}
            }
        }
        for place in 0..self.made.len() {
            if let Some(wrong) = self.overdue(place) {
                self.accuse(wrong);
            }
        }
        self.check_share();
    }

    fn accuse(&self, what: String) {
        self.book.pages().accuse(format_args!("{what}"));
    }

    /// S6: what the operator said stands, whatever is observed.
    fn check_admin(&self, site: usize, view: &ServiceView) {
        let shown = view.service().spec.admin_state;
        if shown != self.services[site].admin {
            self.accuse(format!("S6: {} is shown as {}", self.services[site].name, shown.as_str()));
        }
        for made in self.made.iter().filter(|made| made.site == site) {
            let shown = view.instance(made.instance.id).map(|(instance, _)| instance.admin_state);
            if shown != made.declared.then_some(made.admin) {
                let name = made.instance.endpoint.location();
                self.accuse(format!("S6: {name} is shown as {:?}", shown.map(AdminState::as_str)));
            }
        }
    }

    /// S6 and S8: who would be picked may be, and somebody is while anyone can.
    fn check_pick(&self, view: &ServiceView, explanation: &Explanation) {
        let name = view.service().name();
        let (mut alive, mut full) = (Vec::new(), false);
        for candidate in &explanation.candidates {
            let place = self.made.iter().position(|made| made.instance.id == candidate.instance);
            let Some(place) = place else {
                self.accuse(format!("{name} has an instance that nobody declared"));
                continue;
            };
            let (_, admitted) = self.terms(place);
            if candidate.picked && !admitted {
                self.accuse(format!("S6: {} would be picked", candidate.location));
            }
            let dead = view.instance(candidate.instance).is_some_and(|(_, seen)| is_dead(&seen.health));
            let stdio = matches!(self.made[place].instance.endpoint, Endpoint::Stdio(_));
            let policy = &view.service().spec.routing_policy;
            let room = candidate.in_flight < self.machina.config().routing.in_flight_max(policy, stdio);
            if admitted && !dead {
                // A call waits for one that works on as many as it may.
                full |= !room;
                alive.push(candidate.location.clone());
            }
        }
        if !alive.is_empty() && !full && !explanation.candidates.iter().any(|candidate| candidate.picked) {
            self.accuse(format!("S8: nobody of {name} is picked, though {} may be alive", alive.join(", ")));
        }
    }

    /// L1, L2, L4: what should have been found, or done, by now.
    fn overdue(&self, place: usize) -> Option<String> {
        let pages = self.book.pages();
        let truth = &pages.truths[place];
        if !truth.owned {
            return None;
        }
        let owned = truth.owned_since.elapsed();
        let (name, parameters) = (&truth.name, &truth.parameters);
        let slack = SLACK + LIST;
        let idle = truth.last_contact.elapsed();
        // A process that nobody calls is stopped, and then left alone.
        if !truth.stdio && truth.contacts == 0 && idle > bounds::probe_gap(parameters) + SLACK {
            return Some(format!("L4: nobody has looked at {name} for {idle:?}"));
        }
        let gone = truth.gone_since.map(|since| since.elapsed().min(owned));
        let late = gone.filter(|gone| *gone > bounds::black_hole(parameters) + slack);
        let alone = self.is_alone(&pages.truths, place) && pages.preserved_until.is_none_or(is_long_ago);
        if truth.state.is_up() && !truth.stdio && alone && late.is_some() {
            return Some(format!("L1: {name} is still {} after {late:?}", truth.state.as_str()));
        }
        let well = truth.well_since.map(|since| since.elapsed().min(owned));
        let recovery = match truth.may_flap() || pages.flapping[place] {
            true => bounds::flapping_recovery(parameters),
            false => bounds::recovery(parameters),
        };
        let backed_off = truth.state_since.elapsed() > Duration::from_secs(5 * 60);
        let recovery = recovery + if backed_off { parameters.interval } else { Duration::ZERO };
        let late = well.filter(|well| *well > recovery + slack);
        if !truth.stdio && !truth.state.is_up() && late.is_some() {
            return Some(format!("L2: {name} is still {} after {late:?}", truth.state.as_str()));
        }
        None
    }

    /// Whether nothing but this instance has had a fault since this one has:
    /// several at once may be taken for Machina's own.
    fn is_alone(&self, truths: &[Truth], place: usize) -> bool {
        let Some(since) = truths[place].gone_since else { return true };
        let before = since.checked_sub(Duration::from_secs(120)).unwrap_or(since);
        let others = truths.iter().enumerate().filter(|(other, _)| *other != place);
        others
            .into_iter()
            .all(|(_, truth)| truth.well_since.is_some() && truth.unwell_until.is_none_or(|until| until < before))
    }

    /// S7: soft evidence takes down at most one share of the instances within one
    /// interval.
    fn check_share(&self) {
        let health = &self.machina.config().health;
        let mut pages = self.book.pages();
        pages.ejections.retain(|(at, _)| at.elapsed() < health.interval);
        let owned = pages.ejections.iter().map(|(_, owned)| *owned).max().unwrap_or(0);
        let share = owned * health.self_preservation_percentage as usize / 100;
        let (ejections, allowed) = (pages.ejections.len(), share.max(1));
        if ejections > allowed {
            pages.accuse(format_args!("S7: {ejections} were taken down softly within an interval, {allowed} may be"));
        }
    }

    /// What must be so when nothing has been wrong for a while.
    pub(super) async fn check_settled(&mut self) -> Result<()> {
        for site in 0..self.services.len() {
            let Some(view) = self.machina.get(&self.services[site].name) else { continue };
            for (instance, seen) in view.instances() {
                let open = self.sims.open_sessions(instance);
                if open > 1 {
                    self.accuse(format!("{open} sessions with {} are open", instance.endpoint.location()));
                }
                if seen.health.state != HealthState::Healthy {
                    let (name, state) = (instance.endpoint.location(), seen.health.state.as_str());
                    self.accuse(format!("{name} is {state} though nothing is wrong any more"));
                }
            }
            let explanation = self.machina.explain(&self.services[site].name, None).await?;
            let busy = explanation.candidates.iter().filter(|candidate| candidate.in_flight > 0).count();
            if busy > 0 {
                self.accuse(format!("{busy} instances of {} still work on calls", self.services[site].name));
            }
            if view.instances().len() > 0
                && let Err(error) = self.probe_call(site).await
            {
                self.accuse(format!("a call of {} fails: {error}", self.services[site].name));
            }
        }
        Ok(())
    }

    /// What must be so when the registry is closed.
    pub(super) fn check_closed(&self) {
        for made in &self.made {
            let open = self.sims.open_sessions(&made.instance);
            if open > 0 {
                self.accuse(format!("{open} sessions with {} outlive it", made.instance.endpoint.location()));
            }
        }
    }
}

/// Whether Machina takes the instance to be dead for certain, or to be gone.
fn is_dead(health: &crate::health::Health) -> bool {
    let down = matches!(health.state, HealthState::Unhealthy) && health.reason.code == ReasonCode::Down;
    down || matches!(health.state, HealthState::Expired | HealthState::CrashLoop)
}

fn is_long_ago(moment: Instant) -> bool {
    moment.elapsed() > Duration::from_secs(300)
}
