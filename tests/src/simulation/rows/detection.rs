//! T5 to T8: how soon what is gone is found, and that the living are left alone.

use std::time::Duration;

use machina_core::testing::Behaviour;
use machina_core::testing::simulation::bounds;
use machina_core::{Backend, HealthState, Instance, MemoryStore, ServiceSpec};
use tokio::time::Instant;

use super::super::fleet::{Fleet, config};
use super::super::{Row, paused};
use super::{Size, seconds};

const INSTANCES: usize = 10;

fn down(state: HealthState) -> bool {
    state == HealthState::Unhealthy
}

/// A fleet whose first `count` instances begin to behave so; how long each took to
/// be found down at most, how many were not, and the fleet.
async fn injured(
    seed: u64,
    services: usize,
    count: usize,
    behaviour: Behaviour,
    held: bool,
) -> (Duration, usize, Fleet) {
    let fleet = Fleet::open(seed, services, INSTANCES, config(), |_| {}).await;
    fleet.instances.iter().for_each(|instance| fleet.sims.set_held(instance, held));
    tokio::time::sleep(fleet.parameters.interval).await;
    fleet.forget();
    let since = Instant::now();
    // Scattered over the services, not service by service.
    let each = fleet.instances.len() / count;
    let victims: Vec<usize> = (0..count).map(|number| number * each).collect();
    victims.iter().for_each(|place| fleet.sims.set(&fleet.instances[*place], behaviour));
    tokio::time::sleep(2 * bounds::black_hole(&fleet.parameters)).await;
    let found = victims.iter().map(|place| {
        fleet.seen(|seen| {
            let mut changes = seen.changes.iter().filter(|change| change.place == *place && down(change.to));
            changes.next().map(|change| change.at - since)
        })
    });
    let found: Vec<_> = found.collect();
    let longest = found.iter().flatten().max().copied().unwrap_or_default();
    (longest, found.iter().filter(|found| found.is_none()).count(), fleet)
}

fn row(name: &'static str, what: &str, took: Duration, missing: usize, bound: Duration, how: String) -> Row {
    Row {
        name,
        figure: format!("{what} found after at most {}, {missing} not found", seconds(took)),
        target: format!("≤ {}", seconds(bound)),
        met: missing == 0 && took <= bound,
        how,
    }
}

/// A tenth of all instances is killed, with and without a connection that breaks.
pub(super) fn killed(seed: u64, size: Size) -> Vec<Row> {
    let services = size.of(50, 1000);
    let of = |held: bool| {
        paused(async {
            let count = services;
            let (took, missing, fleet) = injured(seed, services, count, Behaviour::Killed, held).await;
            let (bound, what) = match held {
                true => (bounds::signalled(), "with a connection: "),
                false => (bounds::refused(&fleet.parameters), "without: "),
            };
            fleet.close().await;
            let how = format!("seed {seed}, whole registry, {count} of {} killed at once", services * INSTANCES);
            row("T5", what, took, missing, bound, how)
        })
    };
    vec![of(true), of(false)]
}

/// One in a hundred is a black hole; the others are looked at as before.
pub(super) fn black_holes(seed: u64, size: Size) -> Vec<Row> {
    let services = size.of(50, 1000);
    paused(async {
        let all = services * INSTANCES;
        let (took, missing, fleet) = injured(seed, services, all / 100, Behaviour::BlackHole, true).await;
        let (bound, gap) = (bounds::black_hole(&fleet.parameters), bounds::probe_gap(&fleet.parameters));
        let seen = fleet.longest_gap(0);
        fleet.close().await;
        let how = format!("seed {seed}, whole registry, {} of {all} black-holed at once", all / 100);
        vec![
            row("T6", "black holes", took, missing, bound, how.clone()),
            Row {
                name: "T6",
                figure: format!("every instance probed at least every {}", seconds(seen)),
                target: format!("≤ {}", seconds(gap)),
                met: seen <= gap,
                how,
            },
        ]
    })
}

/// Some accept connections and answer nothing; some child processes are stuck.
pub(super) fn wedged(seed: u64, size: Size) -> Vec<Row> {
    let services = size.of(50, 500);
    paused(async {
        let all = services * INSTANCES;
        let (took, missing, fleet) = injured(seed, services, all / 100, Behaviour::Wedged, true).await;
        let bound = bounds::black_hole(&fleet.parameters);
        fleet.close().await;
        let how = format!("seed {seed}, whole registry, {} of {all} connect and answer nothing", all / 100);
        vec![row("T7", "wedged", took, missing, bound, how), stuck_child(seed).await]
    })
}

async fn stuck_child(seed: u64) -> Row {
    let sims = machina_core::testing::SimConnector::seeded(seed);
    let instances: Vec<Instance> = (0..10).map(|number| sims.process(&format!("child{number}"))).collect();
    let fleet = Fleet::of(seed, sims, instances, Backend::of(MemoryStore::default()), config()).await;
    for (number, instance) in fleet.instances.iter().enumerate() {
        let spec = ServiceSpec::new(&format!("s{number}")).expect("a valid name").instance(instance.clone());
        fleet.machina.register(spec).await.expect("is registered");
    }
    tokio::time::sleep(fleet.parameters.interval).await;
    fleet.forget();
    let since = Instant::now();
    fleet.sims.set(&fleet.instances[0], Behaviour::Wedged);
    let bound = bounds::black_hole(&fleet.parameters);
    tokio::time::sleep(2 * bound).await;
    let (took, missing) = fleet.found(1, since, down);
    fleet.close().await;
    row("T7", "stuck child", took, missing, bound, format!("seed {seed}, whole registry, one of 10 processes"))
}

/// What wants credentials, or asks to slow down, is alive.
pub(super) fn alive(seed: u64, size: Size) -> Vec<Row> {
    let time = Duration::from_secs(size.of(600, 24 * 3600));
    let of = |what: &'static str, behaviour: Behaviour| {
        paused(async {
            let fleet = Fleet::open(seed, 2, INSTANCES, config(), |_| {}).await;
            fleet.forget();
            fleet.instances.iter().for_each(|instance| fleet.sims.set(instance, behaviour));
            tokio::time::sleep(time).await;
            let downs = fleet.seen(|seen| seen.changes.iter().filter(|change| !change.to.is_up()).count());
            let up = fleet.states().iter().filter(|state| state.is_up()).count();
            let all = fleet.instances.len();
            fleet.close().await;
            Row {
                name: "T8",
                figure: format!("{what}: {downs} times down, {up} of {all} up"),
                target: "never unhealthy".to_owned(),
                met: downs == 0 && up == all,
                how: format!("seed {seed}, whole registry, for {}", seconds(time)),
            }
        })
    };
    vec![
        of("401", Behaviour::Status(401)),
        of("403", Behaviour::Status(403)),
        of("429", Behaviour::Status(429)),
        of("429 to calls", Behaviour::Busy),
    ]
}
