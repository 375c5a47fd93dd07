use std::collections::BTreeMap;
use std::future::poll_fn;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Happens {
    Watch(usize, u64),
    Unwatch(usize),
    Probe(usize),
    Within(usize, u64),
    /// So many seconds pass.
    Pass(u64),
    /// The oldest probe ends, and another one is due after so many seconds, or the
    /// instance was not found.
    End(Option<u64>),
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let happens = prop_oneof![
        4 => (0..6_usize, 0..40_u64).prop_map(|(index, delay)| Happens::Watch(index, delay)),
        1 => (0..6_usize).prop_map(Happens::Unwatch),
        2 => (0..6_usize).prop_map(Happens::Probe),
        2 => (0..6_usize, 0..40_u64).prop_map(|(index, delay)| Happens::Within(index, delay)),
        4 => (0..20_u64).prop_map(Happens::Pass),
        4 => prop_oneof![4 => (0..40_u64).prop_map(Some), 1 => Just(None)].prop_map(Happens::End),
    ];
    prop::collection::vec(happens, 0..120)
}

/// S9 for the schedule as it stands: a timer for each instance that has its time
/// before it, and no other; a number for each that is being probed.
fn holds(schedule: &Schedule, running: &[Turn]) -> Result<(), TestCaseError> {
    let timers = schedule.watched.values().filter(|watched| matches!(watched.stage, Stage::Timer(_))).count();
    prop_assert_eq!(schedule.queue.len(), timers, "S9");
    for (instance, watched) in &schedule.watched {
        let probes = running
            .iter()
            .filter(|turn| turn.instance == *instance)
            .filter(|turn| matches!(watched.stage, Stage::Probe(number) if number == turn.number));
        let probed = matches!(watched.stage, Stage::Probe(_));
        prop_assert_eq!(probes.count(), usize::from(probed), "S9");
    }
    Ok(())
}

async fn drive(happenings: Vec<Happens>) -> Result<(), TestCaseError> {
    let ids: Vec<_> = (0..6).map(|_| InstanceId::generate()).collect();
    let mut schedule = Schedule::new(Limits { all: 3, per_host: 2 }, Arc::new(Random::seeded(1)));
    let mut running: Vec<Turn> = Vec::new();
    let mut watched = BTreeMap::new();
    for happens in happenings {
        let due = match happens {
            Happens::Watch(index, delay) => {
                watched.insert(index, true);
                schedule.obey(Command::Watch { instance: ids[index], delay: Duration::from_secs(delay) })
            }
            Happens::Unwatch(index) => {
                watched.insert(index, false);
                schedule.obey(Command::Unwatch(ids[index]))
            }
            Happens::Probe(index) => schedule.obey(Command::Probe(ids[index])),
            Happens::Within(index, delay) => {
                schedule.obey(Command::Within { instance: ids[index], delay: Duration::from_secs(delay) })
            }
            Happens::Pass(seconds) => {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                None
            }
            Happens::End(delay) if !running.is_empty() => {
                schedule.ended(&running.remove(0), delay.map(Duration::from_secs))
            }
            Happens::End(_) => None,
        };
        let mut due: Vec<_> = due.into_iter().collect();
        let expired = poll_fn(|cx| {
            let mut expired = Vec::new();
            while let Poll::Ready(instance) = schedule.poll_due(cx) {
                expired.push(instance);
            }
            Poll::Ready(expired)
        });
        due.extend(expired.await);
        for instance in due {
            let index = ids.iter().position(|id| *id == instance).unwrap_or_default();
            let place = Place { host: (index % 2).to_string().into(), prompt: index % 3 == 0 };
            // The last one is unknown to the registry.
            schedule.due(instance, Some(&place).filter(|_| index != 5));
        }
        while let Some(turn) = schedule.turn() {
            running.push(turn);
        }
        prop_assert_eq!(schedule.len(), watched.values().filter(|watched| **watched).count());
        prop_assert!(running.len() <= 3);
        holds(&schedule, &running)?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_watched_instance_has_one_timer_or_one_turn_or_one_probe(happenings in happenings()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(drive(happenings))?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_an_earlier_life_ends_without_effect() {
    let mut schedule = Schedule::new(Limits { all: 8, per_host: 8 }, Arc::default());
    let (instance, place) = (InstanceId::generate(), Place { host: "a".into(), prompt: true });
    let watch = |delay| Command::Watch { instance, delay };
    schedule.obey(watch(Duration::ZERO));
    let due = poll_fn(|cx| schedule.poll_due(cx)).await;
    schedule.due(due, Some(&place));
    let first = schedule.turn().unwrap();
    schedule.obey(Command::Unwatch(instance));
    schedule.obey(watch(Duration::from_secs(60)));
    assert_eq!(schedule.ended(&first, Some(Duration::from_secs(1))), None);
    let began = Instant::now();
    assert_eq!(poll_fn(|cx| schedule.poll_due(cx)).await, instance);
    assert_eq!(began.elapsed().as_secs(), 60, "the timer of its new life");
}
