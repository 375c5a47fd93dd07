//! Replicas that are killed, cut off and made deaf at random, over instances that
//! come and go: whatever happens, nobody is looked at by three, and in the end
//! everyone knows what is true. A seed makes a schedule; a failure names it.

use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use crate::random::Random;

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(30);

/// How many seeds are tried.
const SEEDS: u64 = 20;

/// How many things happen in each.
const DEEDS: usize = 25;

/// Two of the replicas that there were within so short a time is all there may be.
const TOGETHER: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_replicas_the_others_make_up_for_it() {
    for seed in 0..SEEDS {
        one_run(seed).await;
    }
}

async fn one_run(seed: u64) {
    let random = Random::seeded(seed);
    let mut cluster = Cluster::of(3, 20).await;
    let begun = Instant::now();
    for deed in 0..DEEDS {
        let what = happen(&mut cluster, &random).await;
        tokio::time::sleep(SECOND.mul_f64(15.0 * random.unit())).await;
        let probers = cluster.probers_within(begun, TOGETHER);
        assert!(probers <= 2, "seed {seed}, deed {deed} ({what}): {probers} replicas look at one instance");
    }
    cluster.lines.iter().for_each(|line| line.cut(false));
    // The last one may have died a moment ago; then the true state is found out. An instance may
    // change hands more than once until then, and has to wait for its turn anew each time.
    tokio::time::sleep(TTL + INTERVAL * 4 + SECOND * 3).await;
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
