//! Which of the instances that are due may be probed now: so many probes at
//! once in all, and so many at one host. Whoever waits for its host keeps no place
//! from the others, and instances that may not answer (all but the healthy ones)
//! get at most half of the places: however many of them hang, the others have
//! their turn.
//!
//! Bookkeeping only: knows no task, lock or clock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::model::{HealthConfig, InstanceId};

/// Where a probe goes, as far as the limits are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The host; each instance that is on none has a limit of its own.
    pub(crate) host: Arc<str>,
    /// Whether it is likely to answer at once.
    pub(crate) prompt: bool,
}

/// How many probes may run at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In all.
    pub(crate) all: u32,
    /// At one host.
    pub(crate) per_host: u32,
}

impl Limits {
    pub(crate) fn of(config: &HealthConfig) -> Self {
        Self { all: config.probes_max, per_host: config.probes_per_host_max }
    }
}

/// The probes that run, of both kinds.
#[derive(Debug, Clone, Copy, Default)]
struct Running {
    prompt: u32,
    slow: u32,
}

impl Running {
    fn of(&mut self, prompt: bool) -> &mut u32 {
        if prompt { &mut self.prompt } else { &mut self.slow }
    }

    /// Whether one more of this kind may run.
    fn has_room(self, most: u32, prompt: bool) -> bool {
        self.prompt + self.slow < most && (prompt || self.slow < (most / 2).max(1))
    }
}

/// Who waits at one host.
#[derive(Debug, Default)]
struct Host {
    running: Running,
    waiting: [VecDeque<InstanceId>; 2],
    /// Whether it is listed among the hosts that have both someone waiting and room.
    listed: [bool; 2],
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turns {
    limits: Limits,
    running: Running,
    hosts: HashMap<Arc<str>, Host>,
    /// The hosts that have someone waiting and room, in turn.
    ready: [VecDeque<Arc<str>>; 2],
    /// Which kind is looked at first.
    prompt_first: bool,
}

impl Turns {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            running: Running::default(),
            hosts: HashMap::new(),
            ready: <[VecDeque<Arc<str>>; 2]>::default(),
            prompt_first: true,
        }
    }

    /// An instance waits for its turn.
    pub(super) fn wait(&mut self, instance: InstanceId, place: &Place) {
        let host = self.hosts.entry(Arc::clone(&place.host)).or_default();
        host.waiting[usize::from(place.prompt)].push_back(instance);
        self.list(&place.host, place.prompt);
    }

    /// The next one whose turn it is. Its place is taken until [`Turns::ended`].
    pub(super) fn next(&mut self) -> Option<(InstanceId, Place)> {
        self.prompt_first = !self.prompt_first;
        let prompt = self.prompt_first;
        self.next_of(prompt).or_else(|| self.next_of(!prompt))
    }

    fn next_of(&mut self, prompt: bool) -> Option<(InstanceId, Place)> {
        while self.running.has_room(self.limits.all, prompt) {
            let name = self.ready[usize::from(prompt)].pop_front()?;
            let Some(host) = self.hosts.get_mut(&name) else { continue };
            host.listed[usize::from(prompt)] = false;
            if !host.running.has_room(self.limits.per_host, prompt) {
                // It is listed again when a probe there has ended.
                continue;
            }
            let Some(instance) = host.waiting[usize::from(prompt)].pop_front() else { continue };
            *host.running.of(prompt) += 1;
            *self.running.of(prompt) += 1;
            self.list(&name, prompt);
            return Some((instance, Place { host: name, prompt }));
        }
        None
    }

    /// A probe has ended, or did not take its turn.
    pub(super) fn ended(&mut self, place: &Place) {
        *self.running.of(place.prompt) -= 1;
        let Some(host) = self.hosts.get_mut(&place.host) else { return };
        *host.running.of(place.prompt) -= 1;
        if host.running.prompt + host.running.slow == 0 && host.waiting.iter().all(VecDeque::is_empty) {
            self.hosts.remove(&place.host);
            return;
        }
        self.list(&place.host, true);
        self.list(&place.host, false);
    }

    /// Lists a host if someone waits there who may be probed.
    fn list(&mut self, name: &Arc<str>, prompt: bool) {
        let kind = usize::from(prompt);
        let Some(host) = self.hosts.get_mut(name) else { return };
        let may = !host.waiting[kind].is_empty() && host.running.has_room(self.limits.per_host, prompt);
        if may && !host.listed[kind] {
            host.listed[kind] = true;
            self.ready[kind].push_back(Arc::clone(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(host: usize, prompt: bool) -> Place {
        Place { host: format!("host-{host}").into(), prompt }
    }

    fn drain(turns: &mut Turns) -> Vec<(InstanceId, Place)> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn a_host_that_hangs_keeps_no_place_from_the_others() {
        let mut turns = Turns::new(Limits { all: 16, per_host: 4 });
        for _ in 0..100 {
            turns.wait(InstanceId::generate(), &place(0, true));
        }
        let hung = drain(&mut turns);
        assert_eq!(hung.len(), 4, "the rest wait for their host");
        for host in 1..4 {
            turns.wait(InstanceId::generate(), &place(host, true));
        }
        assert_eq!(drain(&mut turns).len(), 3, "and nobody waits for them");
        turns.ended(&hung[0].1);
        assert_eq!(drain(&mut turns).len(), 1);
    }

    #[test]
    fn what_may_hang_gets_half_of_the_places() {
        let mut turns = Turns::new(Limits { all: 8, per_host: 4 });
        for host in 0..20 {
            turns.wait(InstanceId::generate(), &place(host, false));
        }
        assert_eq!(drain(&mut turns).len(), 4);
        for _ in 0..10 {
            turns.wait(InstanceId::generate(), &place(0, true));
        }
        assert_eq!(drain(&mut turns).len(), 3, "one of the four places of its host is taken");
        turns.wait(InstanceId::generate(), &place(30, true));
        assert_eq!(drain(&mut turns).len(), 1);
    }

    #[test]
    fn one_place_is_for_both_kinds() {
        let mut turns = Turns::new(Limits { all: 1, per_host: 1 });
        turns.wait(InstanceId::generate(), &place(0, false));
        turns.wait(InstanceId::generate(), &place(0, true));
        let first = drain(&mut turns);
        assert_eq!(first.len(), 1);
        turns.ended(&first[0].1);
        assert_eq!(drain(&mut turns).len(), 1);
    }

    proptest! {
        /// Whoever waits has its turn, the limits hold, and nothing is left behind.
        #[test]
        fn everyone_has_a_turn_within_the_limits(
            arrivals in prop::collection::vec((0..6_usize, any::<bool>(), 0..4_u8), 1..200),
            (all, per_host) in (1..8_u32, 1..5_u32),
        ) {
            let mut turns = Turns::new(Limits { all, per_host });
            let (mut waiting, mut running) = (0, Vec::new());
            let mut ended = 0;
            for (host, prompt, endings) in &arrivals {
                turns.wait(InstanceId::generate(), &place(*host, *prompt));
                waiting += 1;
                for _ in 0..*endings {
                    if let Some((_, place)) = running.pop() {
                        turns.ended(&place);
                        ended += 1;
                    }
                }
                running.extend(drain(&mut turns));
                prop_assert!(running.len() <= all as usize);
                for host in 0..6 {
                    let here = running.iter().filter(|(_, at)| at.host == place(host, true).host).count();
                    prop_assert!(here <= per_host as usize);
                }
            }
            while let Some((_, place)) = running.pop() {
                turns.ended(&place);
                ended += 1;
                running.extend(drain(&mut turns));
            }
            prop_assert_eq!(ended, waiting);
            prop_assert!(turns.hosts.is_empty() && turns.running.prompt + turns.running.slow == 0);
        }
    }
}
