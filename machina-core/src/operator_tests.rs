//! S6: what the operator said is never overridden, whatever happens to instances.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::{EventKind, Next};
use crate::health::Status;
use crate::model::Instance;
use crate::testing::registry_suite::{call, service};
use crate::testing::{Behaviour, SimConnector};

const STATES: [AdminState; 5] =
    [AdminState::Enabled, AdminState::Draining, AdminState::Disabled, AdminState::Maintenance, AdminState::Quarantined];

#[derive(Debug, Clone, Copy)]
enum Happening {
    /// The operator says something about the service, or about one instance.
    Says {
        instance: Option<usize>,
        state: AdminState,
        why: Option<&'static str>,
    },
    /// An instance behaves so from now on.
    Behaves {
        instance: usize,
        behaviour: Behaviour,
    },
    /// Its process ends.
    Ends(usize),
    Waits(u64),
    Calls,
}

fn happenings() -> impl Strategy<Value = Happening> {
    let who = prop_oneof![Just(None), (0..3_usize).prop_map(Some)];
    let why = prop_oneof![Just(None), Just(Some("the disk is full")), Just(Some("an upgrade"))];
    let says = (who, prop::sample::select(STATES.to_vec()), why);
    let behaviours = vec![Behaviour::Up, Behaviour::Up, Behaviour::Refuse, Behaviour::Killed, Behaviour::Wedged];
    let behaves = (0..3_usize, prop::sample::select(behaviours));
    prop_oneof![
        3 => says.prop_map(|(instance, state, why)| Happening::Says { instance, state, why }),
        3 => behaves.prop_map(|(instance, behaviour)| Happening::Behaves { instance, behaviour }),
        1 => (0..3_usize).prop_map(Happening::Ends),
        3 => (0..120_u64).prop_map(Happening::Waits),
        4 => Just(Happening::Calls),
    ]
}

/// What the operator said last, and why.
type Said = (AdminState, Option<&'static str>);

struct World {
    machina: Machina,
    sim: SimConnector,
    instances: Vec<Instance>,
    events: EventStream,
    service: Said,
    each: [Said; 3],
}

impl World {
    async fn new() -> Self {
        let sim = SimConnector::seeded(1);
        let machina = Machina::builder().seed(1).connector(Arc::new(sim.clone())).open().await.unwrap();
        let instances = vec![sim.instance("one"), sim.process("two"), sim.instance("three")];
        machina.register(service("a", &instances.iter().collect::<Vec<_>>())).await.unwrap();
        let events = machina.watch();
        let said = (AdminState::Enabled, None);
        Self { machina, sim, instances, events, service: said, each: [said; 3] }
    }

    async fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Says { instance, state, why } => return self.say(instance, state, why).await,
            Happening::Behaves { instance, behaviour } => self.sim.set(&self.instances[instance], behaviour),
            Happening::Ends(instance) => self.sim.exit(&self.instances[instance]),
            Happening::Waits(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Happening::Calls => self.call().await,
        }
        assert_eq!(self.updates(), 0, "only the operator changes the declaration");
        self.check().await;
    }

    async fn say(&mut self, instance: Option<usize>, state: AdminState, why: Option<&'static str>) {
        let said = instance.map_or(&mut self.service, |index| &mut self.each[index]);
        let kept = why.or(said.1.filter(|_| said.0 == state)).filter(|_| state != AdminState::Enabled);
        let before = std::mem::replace(said, (state, kept));
        let news = before != *said;
        let name = ServiceName::new("a").unwrap();
        let reason = why.filter(|_| state != AdminState::Enabled).map(str::to_owned);
        let instance = instance.map(|index| self.instances[index].id);
        self.machina.apply(vec![Mutation::SetAdminState { name, instance, admin_state: state, reason }]).await.unwrap();
        assert_eq!(self.updates(), u32::from(news), "each is told once");
        self.check().await;
    }

    /// Calls, and holds what came of it against what the operator said.
    async fn call(&self) {
        let executions = || self.instances.iter().map(|instance| self.sim.executions(instance)).collect::<Vec<_>>();
        let before = executions();
        let options = CallOptions { timeout: Some(Duration::from_secs(2)), ..CallOptions::default() };
        let outcome = self.machina.call(&call("a", "echo", json!({})), &options).await;
        for (index, (before, after)) in before.into_iter().zip(executions()).enumerate() {
            assert!(before == after || self.admits(index), "instance {index} was called");
        }
        if !(0..3).any(|index| self.admits(index)) {
            assert_eq!(outcome.unwrap_err().kind(), crate::ErrorKind::Unavailable);
        }
    }

    fn admits(&self, index: usize) -> bool {
        self.service.0.admits_calls() && self.each[index].0.admits_calls()
    }

    /// How often the declaration was said to have changed since the last time.
    fn updates(&mut self) -> u32 {
        let mut updates = 0;
        while let Some(next) = self.events.try_next() {
            let Next::Event(event) = next else { panic!("too many events") };
            updates += u32::from(event.kind == EventKind::ServiceUpdated);
        }
        updates
    }

    async fn check(&self) {
        let view = self.machina.get("a").unwrap();
        let spec = &view.service().spec;
        assert_eq!((spec.admin_state, spec.admin_reason.as_deref()), self.service);
        let taken_out = |state| match state {
            AdminState::Enabled => None,
            AdminState::Maintenance => Some(Status::Maintenance),
            _ => Some(Status::Disabled),
        };
        if let Some(status) = taken_out(self.service.0) {
            assert_eq!(view.status(), status);
        }
        let explained = self.machina.explain("a", Some("echo")).await.unwrap();
        for (index, (instance, seen)) in view.instances().enumerate() {
            assert_eq!((instance.admin_state, instance.admin_reason.as_deref()), self.each[index]);
            if let Some(status) = taken_out(instance.admin_state) {
                assert_eq!(seen.status, status);
            }
            let candidate = &explained.candidates[index];
            assert!(self.admits(index) || !candidate.picked, "{candidate:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_the_operator_said_is_never_overridden(happenings in prop::collection::vec(happenings(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for happening in happenings {
                world.take(happening).await;
            }
            world.machina.close().await;
        });
    }
}
