//! What becomes of each entry. Pure: it compares what is there with what is here,
//! and says which change that asks for.

use std::collections::{BTreeMap, BTreeSet};

use machina_core::{AdminState, Endpoint, Instance, Mutation, Revision, ServiceName, ServiceSpec, Timestamp};

use super::foreign::{Foreign, name_here};
use super::mark::{KEY, Mark};
use super::{SyncOutcome, Synced};
use crate::formats::{Difference, diff};

/// Why an instance is disabled that an operator has not looked at.
const HELD: &str = "it comes from another registry and reaches into this process: look at it before you enable it";

/// A service as it is here.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) spec: ServiceSpec,
    pub(super) revision: Revision,
    pub(super) mark: Option<Mark>,
}

/// The services that are here, and which of them are copies of this source under
/// this prefix.
#[derive(Debug)]
pub(super) struct Current {
    services: BTreeMap<ServiceName, Here>,
    copies: BTreeSet<ServiceName>,
}

impl Current {
    pub(super) fn of(services: Vec<Here>, source: &str, prefix: &str) -> Self {
        let is_copy = |here: &Here| here.mark.as_ref().is_some_and(|mark| mark.source == source);
        let fits = |here: &Here| {
            let mark = here.mark.as_ref();
            mark.is_some_and(|mark| name_here(&mark.server, prefix).is_ok_and(|name| name == here.spec.name))
        };
        let name = |here: &Here| here.spec.name.clone();
        let copies = services.iter().filter(|here| is_copy(here) && fits(here)).map(name).collect();
        Self { services: services.into_iter().map(|here| (here.spec.name.clone(), here)).collect(), copies }
    }

    /// When what is here was last changed there.
    pub(super) fn latest(&self) -> Option<Timestamp> {
        self.copies.iter().filter_map(|name| self.services.get(name)?.mark.as_ref()?.updated_at).max()
    }
}

/// What is to be done about one entry.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) synced: Synced,
    pub(super) mutation: Option<Mutation>,
}

#[derive(Debug)]
pub(super) struct Planner<'a> {
    pub(super) source: &'a str,
    pub(super) current: &'a Current,
    pub(super) allow_commands: bool,
}

impl Planner<'_> {
    /// What becomes of an entry; `None` for one that is gone there and was never here.
    pub(super) fn step(&self, foreign: Foreign) -> Option<Step> {
        let Foreign { server, name, deleted, updated_at, spec, .. } = foreign;
        let name = match name {
            Ok(name) => name,
            Err(_) if deleted => return None,
            Err(why) => return Some(step(server, "", SyncOutcome::LeftOut { why })),
        };
        let here = self.current.services.get(&name);
        if deleted {
            return here.filter(|_| self.is_copy_of(&name, &server)).map(|here| remove(server, here));
        }
        let spec = match spec {
            Ok(spec) => spec,
            Err(why) => return Some(step(server, name.as_str(), SyncOutcome::LeftOut { why })),
        };
        let mark = Mark::new(self.source, &server, updated_at, &spec);
        Some(match here {
            None => self.add(server, spec, &mark),
            Some(_) if !self.is_copy_of(&name, &server) => {
                let why = "a service of this name is here already, and does not come from there".to_owned();
                step(server, name.as_str(), SyncOutcome::Kept { why })
            }
            Some(here) => self.change(server, spec, &mark, here),
        })
    }

    /// The copies of which no step is about the original: it is not there any more.
    pub(super) fn missing(&self, steps: &[Step]) -> Vec<Step> {
        let there: BTreeSet<&str> = steps.iter().map(|step| step.synced.service.as_str()).collect();
        let gone = self.current.copies.iter().filter(|name| !there.contains(name.as_str()));
        let found = gone.filter_map(|name| self.current.services.get(name));
        found.map(|here| remove(here.mark.as_ref().map(|mark| mark.server.clone()).unwrap_or_default(), here)).collect()
    }

    fn is_copy_of(&self, name: &ServiceName, server: &str) -> bool {
        let mark = self.current.services.get(name).and_then(|here| here.mark.as_ref());
        self.current.copies.contains(name) && mark.is_some_and(|mark| mark.server == server)
    }

    fn add(&self, server: String, mut spec: ServiceSpec, mark: &Mark) -> Step {
        spec.metadata.shift_remove(KEY);
        mark.put_on(&mut spec);
        let held = spec.instances.iter_mut().map(|instance| self.hold(instance)).filter(|held| *held).count();
        let name = spec.name.to_string();
        step(server, &name, SyncOutcome::Added).holding(held).doing(Mutation::Register(spec))
    }

    fn change(&self, server: String, mut spec: ServiceSpec, mark: &Mark, here: &Here) -> Step {
        let name = spec.name.to_string();
        let known = here.mark.as_ref();
        if known.is_some_and(|known| known.says_the_same_as(mark)) {
            return step(server, &name, SyncOutcome::Unchanged);
        }
        if !known.is_some_and(|known| known.is_true_of(&here.spec)) {
            let why = "it was edited here, and has changed there: remove it to take it from there again".to_owned();
            return step(server, &name, SyncOutcome::Kept { why });
        }
        // What an operator said about its use stays said.
        spec.admin_state = here.spec.admin_state;
        spec.admin_reason.clone_from(&here.spec.admin_reason);
        let digests = known.map(|known| known.instances.as_slice()).unwrap_or_default();
        let mut left: Vec<_> = here.spec.instances.iter().zip(digests).map(Some).collect();
        let mut held = 0;
        for (instance, digest) in spec.instances.iter_mut().zip(&mark.instances) {
            let same = left.iter_mut().find(|left| left.is_some_and(|(_, known)| known == digest));
            match same.and_then(Option::take) {
                Some((kept, _)) => keep(instance, kept),
                None => held += usize::from(self.hold(instance)),
            }
        }
        let mut fields = changed_fields(&here.spec, &spec);
        if fields.is_empty() {
            fields.push("a secret".to_owned());
        }
        mark.put_on(&mut spec);
        let (name, expected) = (spec.name.clone(), Some(here.revision));
        step(server, name.as_str(), SyncOutcome::Changed { fields }).holding(held).doing(Mutation::Update {
            name,
            spec,
            expected,
        })
    }

    /// Disables an instance that reaches into this process, unless that is allowed.
    fn hold(&self, instance: &mut Instance) -> bool {
        if self.allow_commands || !reaches_in(&instance.endpoint) {
            return false;
        }
        instance.admin_state = AdminState::Disabled;
        instance.admin_reason = Some(HELD.to_owned());
        true
    }
}

/// An instance that does what it did stays as it is here, its secrets included.
fn keep(instance: &mut Instance, here: &Instance) {
    let there = std::mem::replace(instance, here.clone());
    (instance.weight, instance.region, instance.zone) = (there.weight, there.region, there.zone);
    instance.labels = there.labels;
}

/// Whether an endpoint is more than an address that may be connected to.
fn reaches_in(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Http(_) | Endpoint::Sse(_) | Endpoint::WebSocket(_) => endpoint.reaches_into_process(),
        _ => true,
    }
}

fn remove(server: String, here: &Here) -> Step {
    let name = here.spec.name.clone();
    if !here.mark.as_ref().is_some_and(|mark| mark.is_true_of(&here.spec)) {
        let why = "it was edited here, and is not there any more: remove it if it is not needed".to_owned();
        return step(server, name.as_str(), SyncOutcome::Kept { why });
    }
    let shown = name.to_string();
    step(server, &shown, SyncOutcome::Removed).doing(Mutation::Deregister { name, expected: Some(here.revision) })
}

fn changed_fields(here: &ServiceSpec, spec: &ServiceSpec) -> Vec<String> {
    let mut here = here.clone();
    here.metadata.shift_remove(KEY);
    let found = diff(&[here], std::slice::from_ref(spec)).pop();
    match found {
        Some(Difference::Changed { fields, .. }) => fields.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

fn step(server: String, service: &str, outcome: SyncOutcome) -> Step {
    Step { synced: Synced { server, service: service.to_owned(), outcome, held: 0 }, mutation: None }
}

impl Step {
    fn doing(mut self, mutation: Mutation) -> Self {
        self.mutation = Some(mutation);
        self
    }

    fn holding(mut self, held: usize) -> Self {
        self.synced.held = held;
        self
    }
}
