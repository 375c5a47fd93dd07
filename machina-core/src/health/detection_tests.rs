//! How soon the whole core finds out what happened to an instance, and what it
//! does when the fault is its own. Bounds are formulas of what is configured.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::ward::{Ward, preservation, went};
use crate::config::Config;
use crate::event::{EventKind, Next};
use crate::health::HealthState;
use crate::model::{HealthParameters, Instance};
use crate::route::CallOptions;
use crate::testing::registry_suite::call;
use crate::testing::simulation::bounds;
use crate::testing::{Behaviour, SimConnector};

/// What the answers themselves may take, and timers that count milliseconds.
const SOME: Duration = Duration::from_millis(100);

/// The defaults, and a stricter set.
fn configs() -> [Config; 2] {
    let mut strict = Config::default();
    strict.health.interval = Duration::from_secs(10);
    strict.health.fast_interval = Duration::from_secs(1);
    strict.health.timeout = Duration::from_secs(2);
    strict.health.confirm_timeout = Duration::from_secs(1);
    strict.health.failure_threshold = 2;
    strict.health.retries = 2;
    strict.health.passive_window = Duration::from_secs(8);
    [Config::default(), strict]
}

fn parameters(config: &Config) -> HealthParameters {
    config.health.parameters(&Default::default(), false)
}

/// The longest time that it took over faults at different moments of the interval.
async fn worst(config: &Config, fault: Behaviour, called: bool) -> Duration {
    let mut worst = Duration::ZERO;
    for moment in 0..6 {
        let mut ward = Ward::http(config.clone(), 1).await;
        // Past its first probes, of which each comes sooner than the next.
        tokio::time::sleep(config.health.interval * 2 + config.health.interval * moment / 6).await;
        if called {
            // A call that succeeds in the last moment replaces a probe.
            ward.machina.call(&call("s0", "echo", json!({})), &CallOptions::default()).await.unwrap();
        }
        ward.told();
        ward.set(0, fault);
        worst = worst.max(ward.until(0, HealthState::Unhealthy).await);
        ward.machina.close().await;
    }
    worst
}

#[tokio::test(start_paused = true)]
async fn l1_silence_is_found_within_its_bound() {
    for config in configs() {
        let bound = bounds::black_hole(&parameters(&config)) + SOME;
        for fault in [Behaviour::BlackHole, Behaviour::Wedged] {
            for called in [false, true] {
                let took = worst(&config, fault, called).await;
                eprintln!("{fault:?}, called {called}: found after {took:?} at most, bound {bound:?}");
                assert!(took <= bound, "{fault:?}, called {called}: {took:?} > {bound:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_any_signal_is_found_within_its_bound() {
    for config in configs() {
        let bound = bounds::refused(&parameters(&config)) + SOME;
        for called in [false, true] {
            let took = worst(&config, Behaviour::Killed, called).await;
            eprintln!("refused, called {called}: found after {took:?} at most, bound {bound:?}");
            assert!(took <= bound, "{took:?} > {bound:?}");
        }
    }
}

/// A held connection that drops and a child that exits say so themselves.
#[tokio::test(start_paused = true)]
async fn what_says_so_itself_is_found_within_a_second() {
    let makes: [fn(&SimConnector, usize) -> Instance; 2] = [|sim, _| sim.instance("one"), |sim, _| sim.process("one")];
    for make in makes {
        for moment in [1, 17, 29] {
            let mut ward = Ward::of(Config::default(), 1, make).await;
            tokio::time::sleep(Duration::from_secs(60 + moment)).await;
            ward.told();
            ward.set(0, Behaviour::Killed);
            let took = ward.until(0, HealthState::Unhealthy).await;
            assert!(took <= bounds::signalled(), "{took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wedged_process_is_found_within_the_bound() {
    let mut ward = Ward::of(Config::default(), 1, |sim, _| sim.process("one")).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    ward.told();
    ward.set(0, Behaviour::Wedged);
    let took = ward.until(0, HealthState::Unhealthy).await;
    assert!(took <= bounds::black_hole(&HealthParameters::default()), "{took:?}");
}

/// L2: back within 15 s at the defaults, as long as it was not away for long.
#[tokio::test(start_paused = true)]
async fn l2_recovery_is_found_within_its_bound() {
    for config in configs() {
        let bound = bounds::recovery(&parameters(&config)) + SOME;
        for fault in [Behaviour::BlackHole, Behaviour::Wedged, Behaviour::Killed] {
            for away in [0, 1, 2, 3, 4, 5, 100, 200] {
                let mut ward = Ward::http(config.clone(), 1).await;
                ward.set(0, fault);
                ward.until(0, HealthState::Unhealthy).await;
                tokio::time::sleep(Duration::from_millis(1_100) * away).await;
                ward.told();
                ward.set(0, Behaviour::Up);
                let took = ward.until(0, HealthState::Healthy).await;
                assert!(took <= bound, "{fault:?} for {away}: {took:?} > {bound:?}");
                ward.machina.close().await;
            }
        }
    }
}

/// T3 in small: an outage of our own network for 60 s.
#[tokio::test(start_paused = true)]
async fn an_outage_of_our_own_takes_nobody_down_and_is_told() {
    let mut ward = Ward::http(Config::default(), 40).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    ward.told();
    (0..39).for_each(|index| ward.set(index, Behaviour::BlackHole));
    tokio::time::sleep(Duration::from_secs(40)).await;
    let overview = ward.machina.system().overview();
    assert!(overview.self_preservation);
    // Hard evidence counts all the same.
    ward.set(39, Behaviour::Killed);
    tokio::time::sleep(Duration::from_secs(20)).await;
    (0..40).for_each(|index| ward.set(index, Behaviour::Up));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let told = ward.told();
    let killed = ward.instances[39].id;
    assert_eq!(went(&told, HealthState::Unhealthy), [killed], "no soft ejection");
    assert!(went(&told, HealthState::Suspect).len() >= 39);
    assert_eq!(preservation(&told), [true, false]);
    assert!(!ward.machina.system().overview().self_preservation);
    for index in 0..40 {
        assert_eq!(ward.health(index).state, HealthState::Healthy);
    }
}

/// T4 in small: our own process stands still for 20 s, again and again.
#[tokio::test(start_paused = true)]
async fn a_stall_of_our_own_takes_nobody_down() {
    let mut ward = Ward::http(Config::default(), 40).await;
    for instance in &ward.instances {
        ward.sim.set_latency(instance, Duration::from_millis(400));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    ward.told();
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(20)).await;
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    let told = ward.told();
    assert_eq!(went(&told, HealthState::Unhealthy), []);
    assert_eq!(went(&told, HealthState::Suspect), []);
}

#[tokio::test(start_paused = true)]
async fn while_our_loop_is_late_probes_get_more_time() {
    let ward = Ward::http(Config::default(), 1).await;
    let scoped = ward.machina.system();
    let factor = || scoped.core.guard.factor();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(factor(), 1.0, "under paused time a loop is in time");
    tokio::time::advance(Duration::from_secs(20)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(factor(), 8.0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(factor(), 1.0);
}

/// S7 in the whole: two of two, both at once, are found one interval apart.
#[tokio::test(start_paused = true)]
async fn s7_soft_ejections_come_one_share_at_a_time() {
    let mut ward = Ward::http(Config::default(), 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    ward.told();
    (0..2).for_each(|index| ward.set(index, Behaviour::BlackHole));
    let (mut at, began) = (Vec::new(), Instant::now());
    while at.len() < 2 {
        if let Next::Event(event) = ward.events.next().await
            && matches!(event.kind, EventKind::HealthChanged { to: HealthState::Unhealthy, .. })
        {
            at.push(began.elapsed());
        }
    }
    let defaults = HealthParameters::default();
    assert!(at[0] <= bounds::black_hole(&defaults) + SOME, "{at:?}");
    assert!(at[1] - at[0] >= defaults.interval, "{at:?}");
    let again = defaults.fast_interval + bounds::failed_probe(&defaults);
    assert!(at[1] <= bounds::black_hole(&defaults) + defaults.interval + again + SOME, "{at:?}");
}

/// What lasts is believed, at the pace of S7.
#[tokio::test(start_paused = true)]
async fn an_outage_of_theirs_is_believed_in_the_end() {
    let mut ward = Ward::http(Config::default(), 10).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    ward.told();
    (0..5).for_each(|index| ward.set(index, Behaviour::BlackHole));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(went(&ward.told(), HealthState::Unhealthy), []);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let told = ward.told();
    assert_eq!((went(&told, HealthState::Unhealthy).len(), preservation(&told)), (5, vec![false]));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_asked_for_is_not_replaced_by_a_recent_answer() {
    let mut ward = Ward::http(Config::default(), 1).await;
    ward.machina.call(&call("s0", "echo", json!({})), &CallOptions::default()).await.unwrap();
    ward.set(0, Behaviour::Killed);
    ward.machina.system().core.monitor.hint(ward.instances[0].id);
    let took = ward.until(0, HealthState::Unhealthy).await;
    assert!(took <= Duration::from_secs(1), "{took:?}");
}

/// An instance that answers slowly is probed as often as one that does not.
#[tokio::test(start_paused = true)]
async fn l4_a_slow_instance_is_probed_in_time() {
    let ward = Ward::http(Config::default(), 1).await;
    ward.sim.set_latency(&ward.instances[0], Duration::from_millis(2_400));
    let before = probes(&ward);
    tokio::time::sleep(Duration::from_secs(3_300)).await;
    let probes = probes(&ward) - before;
    assert!(probes >= 110, "at least every 30 s: {probes}");
}

fn probes(ward: &Ward) -> u64 {
    let view = ward.machina.get("s0").unwrap();
    view.instances().next().unwrap().1.statistics().probes.values().sum()
}
