//! Replicas that are killed, cut off and made deaf at random, over instances that
//! come and go: whatever happens, nobody is looked at by three, and in the end
//! everyone knows what is true. A seed makes a schedule; a failure names it.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::cluster::Cluster;
use crate::config::Config;
use crate::model::InstanceId;
use crate::random::Random;

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(30);

/// How many seeds are tried, unless this variable says another number.
const SEEDS: u64 = 20;
const SEEDS_VARIABLE: &str = "MACHINA_CHAOS_SEEDS";

/// How many things happen in each.
const DEEDS: usize = 25;

/// Two of the replicas that there were within so short a time is all there may be.
const TOGETHER: Duration = Duration::from_secs(1);

#[test]
fn whatever_happens_to_replicas_the_others_make_up_for_it() {
    let seeds = std::env::var_os(SEEDS_VARIABLE).map_or(SEEDS, |said| said.to_str().unwrap().parse().unwrap());
    let failed: Vec<u64> = (0..seeds)
        .filter(|seed| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            std::panic::catch_unwind(|| runtime.block_on(one_run(*seed))).is_err()
        })
        .collect();
    assert!(failed.is_empty(), "of {seeds} seeds these failed, as is said above: {failed:?}");
}

async fn one_run(seed: u64) {
    let random = Random::seeded(seed);
    let mut cluster = Cluster::with(Config::default(), 3, ids(&random)).await;
    let begun = Instant::now();
    for deed in 0..DEEDS {
        let what = happen(&mut cluster, &random).await;
        tokio::time::sleep(SECOND.mul_f64(15.0 * random.unit())).await;
        let probers = cluster.probers_within(begun, TOGETHER);
        assert!(probers <= 2, "seed {seed}, deed {deed} ({what}): {probers} replicas look at one instance");
    }
    cluster.lines.iter().for_each(|line| line.cut(false));
    // The last one may have died a moment ago; then the true state is found out.
    tokio::time::sleep(TTL + INTERVAL + SECOND * 3).await;
    assert_eq!(cluster.disagreement(), None, "seed {seed}");
    let quiet = Instant::now();
    cluster.settle().await;
    tokio::time::sleep(INTERVAL * 2).await;
    let gap = cluster.longest_gap(quiet);
    assert!(gap <= INTERVAL + SECOND * 6, "seed {seed}: nobody looked for {gap:?}");
    for machina in cluster.replicas.drain(..) {
        machina.close().await;
    }
}

/// Twenty instances, the same ones for the same seed.
fn ids(random: &Random) -> Vec<InstanceId> {
    let id = |_| Uuid::from_u64_pair(random.any(), random.any()).to_string().parse().unwrap();
    (0..20).map(id).collect()
}

/// Something happens; returns what.
async fn happen(cluster: &mut Cluster, random: &Random) -> String {
    let victim = random.below(cluster.replicas.len());
    match random.below(10) {
        0 | 1 => {
            cluster.lines[victim].cut(true);
            format!("{victim} is cut off")
        }
        2..=4 => {
            cluster.lines.iter().for_each(|line| line.cut(false));
            "all lines are whole".to_owned()
        }
        5 if cluster.replicas.len() > 2 => {
            cluster.kill(victim);
            format!("{victim} is killed")
        }
        5 | 6 if cluster.replicas.len() < 4 => {
            cluster.join().await;
            "another joins".to_owned()
        }
        7 => {
            cluster.lines[victim].deafen();
            format!("{victim} is not woken any more")
        }
        _ => {
            let instance = cluster.instances[random.below(cluster.instances.len())].id;
            let down = !cluster.world.is_down(instance);
            cluster.world.set_down(instance, down);
            format!("{instance} is down: {down}")
        }
    }
}
