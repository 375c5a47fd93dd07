//! Several replicas under paused time: who probes what, what they know of each
//! other, and what they do without the store.

use std::time::Duration;

use tokio::time::Instant;

use super::cluster::{Cluster, Line};
use crate::error::ErrorKind;
use crate::event::{EventKind, Next};
use crate::health::{HealthState, Observation, ProbeOutcome};
use crate::model::ServiceSpec;
use crate::store::{Batch, EntryKind, JournalQuery, Precondition, Store};
use crate::{AdminState, Config, HttpEndpoint, Instance, Leases, MemoryStore, Principal, ReplicaId, Role};

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn each_instance_is_looked_after_by_one_replica() {
    let cluster = Cluster::of(3, 60).await;
    let since = Instant::now();
    tokio::time::sleep(SECOND * 120).await;
    let shards: Vec<u32> = cluster.replicas.iter().map(|one| one.standing().replica.unwrap().shards).collect();
    assert!(shards.iter().all(|count| (84..=86).contains(count)) && shards.iter().sum::<u32>() == 256, "{shards:?}");
    assert_eq!(cluster.probers_within(since, SECOND * 120), 1);
    assert!(cluster.longest_gap(since) <= INTERVAL + SECOND, "{:?}", cluster.longest_gap(since));
    let by: std::collections::BTreeSet<usize> = cluster.world.probes(since).iter().map(|(_, who, _)| *who).collect();
    assert_eq!(by.len(), 3, "all of them take part");
}

#[tokio::test(start_paused = true)]
async fn of_a_killed_replica_the_others_take_the_instances() {
    let mut cluster = Cluster::of(3, 60).await;
    tokio::time::sleep(SECOND * 60).await;
    let killed = Instant::now();
    cluster.kill(0);
    cluster.world.set_down(cluster.instances[0].id, true);
    tokio::time::sleep(SECOND * 120).await;
    let gap = cluster.longest_gap(killed);
    assert!(gap <= TTL + INTERVAL, "{gap:?}");
    assert!(cluster.probers_within(killed, SECOND * 120) <= 2);
    assert_eq!(cluster.disagreement(), None);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_ends_leaves_no_gap_and_one_that_joins_makes_none() {
    let mut cluster = Cluster::of(2, 40).await;
    let since = Instant::now();
    cluster.join().await;
    tokio::time::sleep(SECOND * 60).await;
    cluster.settle().await;
    let leaving = cluster.replicas.remove(0);
    cluster.lines.remove(0);
    leaving.close().await;
    tokio::time::sleep(SECOND * 60).await;
    cluster.settle().await;
    let gap = cluster.longest_gap(since);
    assert!(gap <= INTERVAL + SECOND * 6, "{gap:?}");
    assert!(cluster.probers_within(since, TTL) <= 2);
    let unknown = cluster.store_says_unknown().await;
    assert_eq!(unknown, 0, "the instances were never out of sight");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_cut_off_stops_in_time_and_writes_nothing_stale() {
    let cluster = Cluster::of(3, 60).await;
    let cut = Instant::now();
    cluster.lines[0].cut(true);
    // Some go down for good, some only for as long as the cut-off replica still looks.
    let (goes, blinks) = (cluster.instances[0].id, cluster.instances[1].id);
    cluster.world.set_down(goes, true);
    cluster.world.set_down(blinks, true);
    tokio::time::sleep(SECOND * 5).await;
    cluster.world.set_down(blinks, false);
    tokio::time::sleep(SECOND * 60).await;
    let last = cluster.world.probes(cut).iter().filter(|(_, who, _)| *who == 0).map(|(at, ..)| *at).max();
    assert!(
        last.is_none_or(|last| last <= cut + TTL / 2 + SECOND),
        "it stopped {:?} after the cut",
        last.unwrap() - cut
    );
    assert_eq!(cluster.replicas[0].standing().replica.unwrap().shards, 0);
    assert!(cluster.probers_within(cut, SECOND * 60) <= 2);
    let healed = Instant::now();
    cluster.lines[0].cut(false);
    while cluster.disagreement().is_some() {
        tokio::time::sleep(SECOND / 10).await;
    }
    assert!(healed.elapsed() <= SECOND * 3, "converged after {:?}", healed.elapsed());
    let gap = cluster.longest_gap(cut);
    assert!(gap <= TTL + INTERVAL, "{gap:?}");
    cluster.settle().await;
    for instance in &cluster.instances {
        let (told, shown) = (cluster.transitions_of(instance.id).await, cluster.health(1, instance.id).unwrap());
        assert_eq!(told.last().map(String::as_str), Some(shown.state.as_str()), "{told:?}");
        assert!(told.windows(2).all(|two| two[0] != two[1]), "what is stale was not written: {told:?}");
    }
}

/// From the end of the last replica until the first one is there again nothing is known.
#[tokio::test(start_paused = true)]
async fn the_journal_says_when_nobody_looked() {
    let mut cluster = Cluster::of(1, 5).await;
    cluster.world.set_down(cluster.instances[0].id, true);
    tokio::time::sleep(SECOND * 60).await;
    cluster.replicas.remove(0).close().await;
    cluster.lines.remove(0);
    tokio::time::sleep(SECOND * 600).await;
    cluster.join().await;
    cluster.join().await;
    cluster.settle().await;
    for (index, instance) in cluster.instances.iter().enumerate() {
        let told = cluster.transitions_of(instance.id).await;
        let now = if index == 0 { "unhealthy" } else { "healthy" };
        assert_eq!(told[told.len() - 3..], [now, "unknown", now], "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_sees_all_show_once() {
    let cluster = Cluster::of(3, 12).await;
    tokio::time::sleep(SECOND * 5).await;
    let mut streams: Vec<_> = cluster.replicas.iter().map(|machina| machina.watch()).collect();
    let down = cluster.instances[3].id;
    cluster.world.set_down(down, true);
    while cluster.disagreement().is_some() {
        tokio::time::sleep(SECOND / 100).await;
    }
    let all: Vec<_> = (0..3).map(|replica| cluster.health(replica, down).unwrap()).collect();
    assert!(all.iter().all(|health| health.reason.message == "it is down" && health.since == all[0].since), "{all:?}");
    tokio::time::sleep(SECOND * 10).await;
    for stream in &mut streams {
        let told = std::iter::from_fn(|| stream.try_next()).filter(|next| match next {
            Next::Event(event) => matches!(event.kind, EventKind::HealthChanged { instance, .. } if instance == down),
            Next::Resync => panic!("a gap"),
        });
        assert_eq!(told.count(), 1);
    }
    let transitions = cluster.transitions_of(down).await;
    assert_eq!(transitions.iter().filter(|to| *to == "unhealthy").count(), 1, "{transitions:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_check_is_known_to_all_within_a_minute_or_so() {
    let cluster = Cluster::of(2, 10).await;
    let before = cluster.store.load().await.unwrap();
    tokio::time::sleep(SECOND * 130).await;
    let after = cluster.store.load().await.unwrap();
    assert!(after.revision.0 - before.revision.0 <= 6, "of what did not change little is written");
    for id in cluster.instances.iter().map(|instance| instance.id) {
        let told = after.health[&id].last_check;
        assert!(told > before.health[&id].last_check);
        assert!((0..2).all(|replica| cluster.health(replica, id).unwrap().last_check >= told));
    }
}

/// What the others see fail, the replica looks at that looks after it.
#[tokio::test(start_paused = true)]
async fn what_another_sees_fail_is_probed_at_once() {
    let cluster = Cluster::of(3, 3).await;
    for instance in &cluster.instances {
        let holder = cluster.holder(instance.id);
        let core = &cluster.replicas[(holder + 1) % 3].system().core;
        // Not in the second after a probe of its own.
        tokio::time::sleep(SECOND * 2).await;
        cluster.world.set_down(instance.id, true);
        let seen = Instant::now();
        let view = core.view();
        let refused = Observation::new(ProbeOutcome::Fail { hard: true }, "it refuses connections");
        core.observe_call(view.owner(instance.id).unwrap(), instance.id, refused);
        tokio::time::sleep(SECOND * 2).await;
        let probes = cluster.world.probes(seen);
        let at = probes.iter().find(|(_, who, which)| (*who, *which) == (holder, instance.id)).map(|(at, ..)| *at);
        assert!(at.is_some_and(|at| at - seen < SECOND), "{at:?}");
        let told = cluster.health(holder, instance.id).unwrap();
        assert_eq!(told.state, HealthState::Unhealthy, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_that_is_lost_loses_nothing() {
    let mut cluster = Cluster::of(3, 2).await;
    cluster.lines.iter().for_each(|line| line.deafen());
    for _ in 0..5 {
        let begun = Instant::now();
        cluster.add(Instance::new(HttpEndpoint::new("http://new.x/mcp"))).await;
        let name = format!("s{}", cluster.instances.len() - 1);
        while cluster.replicas.iter().any(|machina| machina.get(&name).is_none()) {
            tokio::time::sleep(SECOND / 100).await;
        }
        assert!(begun.elapsed() <= SECOND * 2, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn writers_at_several_replicas_see_each_other() {
    let cluster = Cluster::of(3, 0).await;
    for round in 0..10 {
        let name = format!("n{round}");
        let (a, b, c) = (&cluster.replicas[0], &cluster.replicas[1], &cluster.replicas[2]);
        a.register(ServiceSpec::new(&name).unwrap()).await.unwrap();
        let again = b.register(ServiceSpec::new(&name).unwrap()).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict);
        b.set_admin_state(&name, None, AdminState::Draining).await.unwrap();
        c.deregister(&name).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_reads_go_on_and_writes_are_refused() {
    let cluster = Cluster::of(2, 3).await;
    cluster.lines.iter().for_each(|line| line.cut(true));
    let standing = cluster.replicas[0].standing();
    assert!(!standing.stale && standing.error.is_none(), "{standing:?}");
    tokio::time::sleep(SECOND * 10).await;
    let standing = cluster.replicas[0].standing();
    assert!(standing.stale && standing.lag_ms > 5000 && standing.error.is_some(), "{standing:?}");
    assert!(cluster.replicas[0].get("s1").is_some());
    cluster.replicas[0].ready().await.unwrap();
    let begun = Instant::now();
    let refused = cluster.replicas[0].register(ServiceSpec::new("late").unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(begun.elapsed() <= SECOND * 10, "{:?}", begun.elapsed());
    cluster.lines.iter().for_each(|line| line.cut(false));
    tokio::time::sleep(SECOND * 7).await;
    let standing = cluster.replicas[0].standing();
    assert!(!standing.stale && standing.error.is_none(), "{standing:?}");
    assert!(cluster.replicas[0].get("late").is_none(), "what was refused did not happen");
    cluster.replicas[0].register(ServiceSpec::new("late").unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_older_backup_is_shown_as_it_is() {
    let cluster = Cluster::of(2, 3).await;
    let backup = cluster.store.load().await.unwrap();
    for name in ["x", "y", "z"] {
        cluster.replicas[0].register(ServiceSpec::new(name).unwrap()).await.unwrap();
    }
    tokio::time::sleep(SECOND * 2).await;
    let mut stream = cluster.replicas[1].watch();
    let cursor = stream.cursor().unwrap();
    let before = cluster.replicas[1].view().revision();
    let restored = std::sync::Arc::new(MemoryStore::holding(&backup).unwrap());
    cluster.lines.iter().for_each(|line| line.lead_to(&restored));
    tokio::time::sleep(SECOND * 2).await;
    for machina in &cluster.replicas {
        assert!(machina.view().revision() < before && machina.get("x").is_none() && machina.get("s1").is_some());
    }
    assert_eq!(stream.try_next(), Some(Next::Resync));
    let mut resumed = cluster.replicas[1].system().watch_after(&cursor).unwrap();
    assert_eq!(resumed.next().await, Next::Resync);
    cluster.replicas[1].register(ServiceSpec::new("after").unwrap()).await.unwrap();
    tokio::time::sleep(SECOND * 2).await;
    assert!(cluster.replicas[0].get("after").is_some());
}

#[tokio::test(start_paused = true)]
async fn heartbeats_count_wherever_they_come() {
    let mut cluster = Cluster::of(3, 0).await;
    for name in 0..6 {
        let mut instance = Instance::new(HttpEndpoint::new(format!("http://leased{name}.x/mcp")));
        instance.lease_ttl = Some(SECOND * 20);
        cluster.add(instance).await;
    }
    cluster.settle().await;
    for round in 0..20 {
        tokio::time::sleep(SECOND * 10).await;
        for index in 0..cluster.instances.len() {
            let machina = cluster.replicas[(round + index) % 3].scoped(Principal::new("x", Role::Developer));
            machina.heartbeat(&format!("s{index}"), None).unwrap();
        }
        for (replica, instance) in (0..3).flat_map(|one| cluster.instances.iter().map(move |i| (one, i.id))) {
            let state = cluster.health(replica, instance).unwrap().state;
            assert_eq!(state, HealthState::Healthy, "round {round}, replica {replica}");
        }
    }
    tokio::time::sleep(SECOND * 30).await;
    for (replica, instance) in (0..3).flat_map(|one| cluster.instances.iter().map(move |i| (one, i.id))) {
        assert_eq!(cluster.health(replica, instance).unwrap().state, HealthState::Expired);
    }
    cluster.replicas[1].scoped(Principal::new("x", Role::Developer)).heartbeat("s0", None).unwrap();
    tokio::time::sleep(SECOND * 5).await;
    for replica in 0..3 {
        assert_eq!(cluster.health(replica, cluster.instances[0].id).unwrap().state, HealthState::Healthy);
    }
    tokio::time::sleep(Config::default().health.expired_retention + SECOND * 60).await;
    assert!(cluster.replicas.iter().all(|machina| machina.view().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_replica_knows_the_health_at_once() {
    let mut cluster = Cluster::of(2, 8).await;
    cluster.world.set_down(cluster.instances[2].id, true);
    tokio::time::sleep(SECOND * 40).await;
    cluster.join().await;
    assert_eq!(cluster.disagreement(), None);
    assert_eq!(cluster.health(2, cluster.instances[2].id).unwrap().reason.message, "it is down");
}

#[tokio::test(start_paused = true)]
async fn who_only_reads_takes_nothing_over_and_leaves_no_trace() {
    let cluster = Cluster::of(2, 5).await;
    let since = Instant::now();
    let reader = cluster.open(9, &Line::to(&cluster.store), crate::Builder::without_monitor).await;
    tokio::time::sleep(SECOND * 60).await;
    let shown = reader.get("s0").unwrap();
    assert!(shown.instances().all(|(_, seen)| seen.health.state == HealthState::Healthy));
    reader.close().await;
    cluster.settle().await;
    assert!(cluster.world.probes(since).iter().all(|(_, who, _)| *who != 9));
    assert_eq!(cluster.store_says_unknown().await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_former_holder_writes_is_refused() {
    let cluster = Cluster::of(1, 1).await;
    let stranger = ReplicaId::generate();
    cluster.store.hold(stranger, SECOND * 60).await.unwrap();
    let precondition = Precondition::Holds { shard: 3, replica: stranger, epoch: 1 };
    let refused = cluster.store.commit(&Batch { preconditions: vec![precondition], ..Batch::default() }).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
}

impl Cluster {
    /// What the journal says the instance became, oldest first.
    async fn transitions_of(&self, instance: crate::InstanceId) -> Vec<String> {
        tokio::time::sleep(SECOND).await;
        let query = JournalQuery { instance: Some(instance), ..JournalQuery::of(EntryKind::Transition) };
        let page = crate::Journal::read(&*self.store, &query).await.unwrap();
        let to = |entry: crate::Entry| match entry.what {
            crate::What::Transition { to, .. } => to,
            other => panic!("{other:?}"),
        };
        page.entries.into_iter().rev().map(to).collect()
    }

    async fn store_says_unknown(&self) -> usize {
        let mut count = 0;
        for instance in &self.instances {
            count += self.transitions_of(instance.id).await.iter().filter(|to| *to == "unknown").count();
        }
        count
    }
}
