use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(30);

fn preservation() -> Preservation {
    Preservation::new(INTERVAL, 15)
}

fn instances(count: usize) -> Vec<InstanceId> {
    (0..count).map(|_| InstanceId::generate()).collect()
}

#[test]
fn a_few_that_fail_are_just_that() {
    let (mut preservation, now) = (preservation(), Instant::now());
    for instance in instances(2) {
        preservation.fails(instance, now, 2);
    }
    assert!(!preservation.holds(), "two are no sign of anything");
    for instance in instances(13) {
        preservation.fails(instance, now, 100);
    }
    assert!(!preservation.holds(), "15 of 100 are not more than 15 %");
    preservation.fails(InstanceId::generate(), now, 100);
    assert!(preservation.holds());
}

#[test]
fn one_that_fails_again_and_again_counts_once() {
    let (mut preservation, now, one) = (preservation(), Instant::now(), InstanceId::generate());
    for second in 0..20 {
        preservation.fails(one, now + Duration::from_secs(second), 3);
        preservation.settled(one);
    }
    assert!(!preservation.holds());
    assert_eq!(preservation.began.len(), 1, "and takes up one place");
}

#[test]
fn those_that_fail_slowly_one_after_the_other_are_believed() {
    let (mut preservation, mut now) = (preservation(), Instant::now());
    for instance in instances(10) {
        preservation.fails(instance, now, 10);
        now += INTERVAL / 2;
        preservation.look(now, 10, true);
    }
    assert!(!preservation.holds());
}

#[test]
fn an_outage_of_our_own_takes_nobody_down_and_is_over_when_it_is() {
    let (mut preservation, mut now, all) = (preservation(), Instant::now(), instances(10));
    for (index, instance) in all.iter().enumerate() {
        preservation.fails(*instance, now, 10);
        assert_eq!(preservation.is_frozen(now, 10), index >= 2);
        now += Duration::from_secs(2);
    }
    now += INTERVAL * 2;
    preservation.look(now, 10, true);
    assert!(preservation.holds(), "nothing new fails, but all still do");
    all[1..].iter().for_each(|instance| preservation.settled(*instance));
    preservation.look(now, 10, true);
    assert!(!preservation.holds() && !preservation.is_frozen(now, 10));
}

#[test]
fn what_lasts_is_believed_if_nothing_is_the_matter_with_machina() {
    let (mut preservation, began) = (preservation(), Instant::now());
    for instance in instances(10) {
        preservation.fails(instance, began, 10);
    }
    let lasting = began + INTERVAL * INTERVALS_MAX;
    preservation.look(lasting - Duration::from_secs(1), 10, true);
    assert!(preservation.holds());
    preservation.look(lasting, 10, false);
    assert!(preservation.holds(), "its own self-test fails");
    preservation.look(lasting, 10, true);
    assert!(!preservation.holds());
    assert_eq!(preservation.failing(), 10);
}

#[derive(Debug, Clone)]
enum Happens {
    Fails(usize),
    Settled(usize),
    Look(bool),
}

fn happenings() -> impl Strategy<Value = Vec<(u64, Happens)>> {
    let happens = prop_oneof![
        6 => (0..40_usize).prop_map(Happens::Fails),
        2 => (0..40_usize).prop_map(Happens::Settled),
        1 => any::<bool>().prop_map(Happens::Look),
    ];
    prop::collection::vec((0..8_000_u64, happens), 0..300)
}

proptest! {
    /// S7, and that the frozen and the held are what they say.
    #[test]
    fn soft_ejections_within_an_interval_are_at_most_one_share(happenings in happenings(), targets in 1..200_usize) {
        let (mut preservation, all) = (preservation(), instances(40));
        let mut now = Instant::now();
        let mut ejections: Vec<Instant> = Vec::new();
        for (milliseconds, happens) in happenings {
            now += Duration::from_millis(milliseconds);
            match happens {
                Happens::Fails(index) => {
                    let held = preservation.holds();
                    preservation.fails(all[index], now, targets);
                    prop_assert!(preservation.holds() || !held, "a failure never ends it");
                    if !preservation.is_frozen(now, targets) {
                        prop_assert!(!preservation.holds());
                        preservation.ejected(all[index], now);
                        ejections.push(now);
                    }
                }
                Happens::Settled(index) => preservation.settled(all[index]),
                Happens::Look(sound) => {
                    let held = preservation.holds();
                    preservation.look(now, targets, sound);
                    prop_assert!(held || !preservation.holds(), "a look never begins it");
                }
            }
            let within = ejections.iter().filter(|at| now.saturating_duration_since(**at) < INTERVAL).count();
            prop_assert!(within <= (targets * 15 / 100).max(1), "S7: {within} of {targets}");
            prop_assert!(preservation.began.len() == preservation.recent.len() && preservation.recent.len() <= 40);
        }
    }
}
