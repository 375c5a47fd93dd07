use proptest::prelude::*;

use super::*;

fn found(index: usize, rank: Rank, locality: Locality, is_full: bool) -> Found {
    let candidate = Candidate::new(index, 1);
    Found { rank, locality, candidate, is_full, is_trial: false, wants_probe: false }
}

/// A survey of instances with these ranks and places, none of them full.
fn survey(instances: &[(Rank, Locality)]) -> Survey {
    surveyed(instances.iter().enumerate().map(|(index, (rank, at))| found(index, *rank, *at, false)))
}

fn surveyed(found: impl Iterator<Item = Found>) -> Survey {
    let mut survey = Survey { found: found.collect(), ..Survey::default() };
    survey.judge(50, 70);
    survey
}

fn anywhere(ranks: &[Rank]) -> Survey {
    survey(&ranks.iter().map(|rank| (*rank, Locality::Anywhere)).collect::<Vec<_>>())
}

fn selected(survey: &Survey, tried: &[usize]) -> Vec<usize> {
    let candidates = survey.select(|index| !tried.contains(&index)).unwrap_or_default();
    candidates.iter().map(|candidate| candidate.index).collect()
}

use Rank::{Down, Dubious, Eligible, Excluded, Failing, Held};

#[test]
fn those_that_are_up_share_the_calls_unless_they_are_too_few() {
    let half = anywhere(&[Eligible, Dubious, Eligible, Down]);
    assert_eq!((half.is_panic, selected(&half, &[])), (false, vec![0, 2]));
    let few = anywhere(&[Eligible, Dubious, Dubious, Down, Held]);
    assert_eq!((few.is_panic, selected(&few, &[])), (true, vec![0, 1, 2]), "whatever is not certainly down");
    let failing = anywhere(&[Failing, Dubious, Failing, Down, Held]);
    assert_eq!((failing.is_panic, selected(&failing, &[])), (true, vec![1]), "it answers its probes");
    assert_eq!(selected(&failing, &[1]), [0, 2], "the others are still better than the one that is down");
    let full = [(Dubious, true), (Failing, false), (Down, false)];
    let full =
        surveyed(full.iter().enumerate().map(|(index, (rank, full))| found(index, *rank, Locality::Anywhere, *full)));
    assert_eq!(selected(&full, &[]), [1], "in panic, nobody waits for room");
    let excluded = anywhere(&[Eligible, Dubious, Excluded, Excluded]);
    assert!(!excluded.is_panic, "those that may not be used do not count");
}

#[test]
fn what_was_tried_is_followed_by_what_is_worse() {
    let survey = anywhere(&[Eligible, Eligible, Eligible, Eligible, Dubious, Failing, Held, Down, Excluded]);
    assert!(!survey.is_panic);
    let mut tried = Vec::new();
    for expected in [vec![0, 1, 2, 3], vec![1, 2, 3], vec![2, 3], vec![3], vec![4], vec![5], vec![6], vec![7], vec![]] {
        let selected = selected(&survey, &tried);
        assert_eq!(selected, expected, "after {tried:?}");
        tried.extend(selected.first());
    }
}

#[test]
fn too_much_to_do_is_no_reason_to_use_those_that_are_not_well() {
    let full = [(Eligible, true), (Eligible, true), (Dubious, false), (Down, false)];
    let survey =
        surveyed(full.iter().enumerate().map(|(index, (rank, full))| found(index, *rank, Locality::Anywhere, *full)));
    assert_eq!(survey.select(|_| true), Err(Lack::Room));
    assert_eq!(selected(&survey, &[0, 1]), [2], "after they failed, it is");
}

#[test]
fn nearby_instances_are_preferred_while_enough_of_them_are_up() {
    use Locality::{Anywhere, Region, Zone};
    let all = [(Eligible, Zone), (Eligible, Zone), (Eligible, Region), (Eligible, Anywhere)];
    assert_eq!(selected(&survey(&all), &[]), [0, 1]);
    assert_eq!(selected(&survey(&all), &[0, 1]), [2, 3], "the others when those were tried");
    let [_, two, three, four] = all;
    // One of two in the zone is less than 70 %, two of three in the region as well.
    assert_eq!(selected(&survey(&[(Dubious, Zone), two, three, four]), &[]), [1, 2, 3]);
    let region = survey(&[(Down, Zone), two, three, (Eligible, Region), four]);
    assert_eq!((region.reach, selected(&region, &[])), (Region, vec![1, 2, 3]));
    assert_eq!(selected(&survey(&[four, (Eligible, Anywhere)]), &[]), [0, 1], "none is near");
    let full = [(Zone, true), (Zone, true), (Region, false)];
    let full = surveyed(full.iter().enumerate().map(|(index, (at, full))| found(index, Eligible, *at, *full)));
    assert_eq!(selected(&full, &[]), [2], "nearby ones are full");
}

#[test]
fn in_panic_distance_does_not_count() {
    let survey = survey(&[(Eligible, Locality::Zone), (Dubious, Locality::Anywhere), (Dubious, Locality::Region)]);
    assert_eq!((survey.is_panic, selected(&survey, &[])), (true, vec![0, 1, 2]));
}

fn rank() -> impl Strategy<Value = Rank> {
    prop_oneof![Just(Eligible), Just(Dubious), Just(Failing), Just(Held), Just(Down), Just(Excluded)]
}

fn locality() -> impl Strategy<Value = Locality> {
    prop_oneof![Just(Locality::Zone), Just(Locality::Region), Just(Locality::Anywhere)]
}

proptest! {
    /// S8: there is always someone to call while an instance that may be used is
    /// not certainly down; when all such have too much to do, a call waits.
    #[test]
    fn an_instance_that_is_not_certainly_down_is_never_given_up(
        instances in prop::collection::vec((rank(), locality(), any::<bool>()), 0..12),
        panic_percentage in 0..=100_u32, locality_percentage in 0..=100_u32,
    ) {
        let found = instances.iter().enumerate().map(|(index, (rank, at, full))| found(index, *rank, *at, *full));
        let mut survey = Survey { found: found.collect(), ..Survey::default() };
        survey.judge(panic_percentage, locality_percentage);
        let usable = |found: &&Found| found.rank != Excluded;
        let alive = survey.found.iter().filter(|found| found.rank < Down).count();
        match survey.select(|_| true) {
            Err(Lack::Instances) => prop_assert_eq!(survey.found.iter().filter(usable).count(), 0),
            Err(Lack::Room) => prop_assert!(survey.found.iter().filter(usable).any(|found| found.is_full)),
            Ok(candidates) => {
                prop_assert!(!candidates.is_empty());
                let picked = |index: usize| survey.found[index];
                let all = candidates.iter().map(|candidate| picked(candidate.index));
                for one in all {
                    prop_assert!(one.rank != Excluded && !one.is_full);
                    prop_assert!(alive == 0 || one.rank < Down, "one that is down while others are not");
                }
            }
        }
        // Whoever keeps trying gets to everyone that may be used and has room.
        let mut tried = Vec::new();
        loop {
            let next = selected(&survey, &tried);
            if next.is_empty() {
                break;
            }
            tried.extend(next);
        }
        let room = survey.found.iter().filter(usable).filter(|found| !found.is_full).count();
        let blocked = survey.select(|index| !tried.contains(&index)) == Err(Lack::Room);
        prop_assert!(tried.len() == room || blocked);
    }
}
