//! T20: replicas are killed, stopped and cut off from the store, while servers go
//! up and down.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{NAMES, REPLICAS, Rig};
use crate::Scale;
use crate::random::Random;
use crate::report::{Row, shown, spread};

const TARGET: &str = "≤ 2 probers of each, gap ≤ 20 s, 0 stale writes, converged ≤ 3 s after healing";
const GAP_MAX: Duration = Duration::from_secs(20);
const CONVERGED_MAX: Duration = Duration::from_secs(3);

/// How long a replica is stopped, or cut off.
const AWAY: Duration = Duration::from_secs(20);

/// How long before the healing everything is as it is then.
const STEADY: Duration = Duration::from_secs(4);

/// How long the owner may take to see and to say how a server is.
const SEEN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Stop,
    Cut,
}

const FAULTS: [Fault; 3] = [Fault::Kill, Fault::Stop, Fault::Cut];

/// What is found out while faults happen.
#[derive(Debug, Default)]
struct Found {
    converged: Vec<Duration>,
    gaps: Vec<Duration>,
    probers: usize,
    stale: Vec<String>,
    faults: BTreeMap<&'static str, u32>,
    refused: u64,
}

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let servers = scale.services.unwrap_or(if scale.short { 24 } else { 60 });
    let lasting = scale.lasting.unwrap_or(if scale.short { Duration::ZERO } else { Duration::from_secs(1800) });
    let mut rig = Rig::start(servers).await;
    let (mut random, mut found, begun) = (Random::new(scale.seed), Found::default(), Instant::now());
    let mut round = 0;
    while round < FAULTS.len() || begun.elapsed() < lasting {
        let replica = random.below(REPLICAS);
        suffer(&mut rig, FAULTS[round % FAULTS.len()], replica, &mut random, &mut found).await;
        round += 1;
    }
    found.refused += rig.refused().await;
    row(&rig, &found, begun.elapsed())
}

/// One fault, from its beginning until all is well again.
async fn suffer(rig: &mut Rig, fault: Fault, victim: usize, random: &mut Random, found: &mut Found) {
    let begun = Instant::now();
    let word = match fault {
        Fault::Kill => "killed",
        Fault::Stop => "stopped",
        Fault::Cut => "cut off",
    };
    *found.faults.entry(word).or_default() += 1;
    match fault {
        Fault::Kill => {
            let mut process = rig.replicas[victim].take().expect("the replica runs");
            process.signal(Signal::KILL);
            process.ended(SEEN).await;
        }
        Fault::Stop => rig.replica(victim).signal(Signal::STOP),
        Fault::Cut => rig.wires[victim].cut(true),
    }
    let witness = (victim + 1) % REPLICAS;
    let mut last = rig.shown(witness).await.unwrap_or_default();
    let mut flip_at = begun + random.between(Duration::from_millis(200), Duration::from_secs(3));
    while begun.elapsed() < AWAY {
        if Instant::now() >= flip_at && begun.elapsed() + STEADY < AWAY {
            let server = random.below(rig.servers);
            rig.field.set_down(server, !rig.field.is_down(server));
            flip_at = Instant::now() + random.between(Duration::from_millis(500), Duration::from_secs(4));
        }
        watch(rig, witness, &mut last, found).await;
        sleep(Duration::from_millis(100)).await;
    }
    match fault {
        Fault::Kill => rig.replicas[victim] = Some(rig.serve(victim).await),
        Fault::Stop => rig.replica(victim).signal(Signal::CONT),
        Fault::Cut => rig.wires[victim].cut(false),
    }
    let converged = rig.converge().await;
    println!("T20  {} {word} for {AWAY:?}: converged {} after healing", NAMES[victim], shown(converged));
    found.converged.push(converged);
    // What was held back until now would be written now.
    let healed = Instant::now();
    while healed.elapsed() < SEEN {
        watch(rig, witness, &mut last, found).await;
        sleep(Duration::from_millis(100)).await;
    }
    found.gaps.push(rig.field.longest_gap(begun, rig.servers));
    found.probers = found.probers.max(rig.field.most_probers(begun));
}

/// A server that has been as it is for a while, and becomes something else all the
/// same, was written about by somebody who should not have.
async fn watch(rig: &Rig, witness: usize, last: &mut BTreeMap<String, String>, found: &mut Found) {
    let Ok(now) = rig.shown(witness).await else { return };
    for server in 0..rig.servers {
        let name = format!("s{server}");
        let (before, after) = (last.get(&name), now.get(&name));
        let wrong = if rig.field.is_down(server) { "healthy" } else { "unhealthy" };
        let steady = rig.field.steady_for(server) > SEEN;
        if before != after && after.is_some_and(|state| state == wrong) && steady {
            found.stale.push(format!("{name} became {wrong}, {:?} after it had changed", rig.field.steady_for(server)));
        }
    }
    *last = now;
}

fn row(rig: &Rig, found: &Found, lasted: Duration) -> Row {
    let gap = found.gaps.iter().max().copied().unwrap_or_default();
    let converged = found.converged.iter().max().copied().unwrap_or_default();
    let within = found.probers <= 2 && gap <= GAP_MAX && converged <= CONVERGED_MAX;
    let mut broken = found.stale.clone();
    if found.probers > 2 {
        broken.push(format!("{} replicas looked at one server at a time", found.probers));
    }
    let faults: Vec<String> = found.faults.iter().map(|(word, count)| format!("{count} {word}")).collect();
    Row {
        name: "T20",
        figure: format!(
            "≤ {} probers, gap ≤ {}, {} stale writes, converged {}",
            found.probers,
            shown(gap),
            found.stale.len(),
            spread(found.converged.clone())
        ),
        target: TARGET,
        met: within && broken.is_empty(),
        broken,
        details: vec![
            format!(
                "3 machina serve over one PostgreSQL, {} servers, {}; for {}",
                rig.servers,
                faults.join(", "),
                shown(lasted)
            ),
            format!(
                "writes that the store refused: {}; contacts with the servers: {}",
                found.refused,
                rig.field.contacts()
            ),
        ],
    }
}
