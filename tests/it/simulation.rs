//! The registry as a whole, simulated: a few hundred schedules of what can go
//! wrong, and the rows of the table of reliability, shortened.

use machina_tests::simulation::{command, replay};

const SEEDS: u64 = 300;
const STEPS: u32 = 30;

#[test]
fn nothing_is_wrong_whatever_happens() {
    let mut calls = 0;
    for seed in 0..SEEDS {
        let run = replay(seed, STEPS);
        assert!(run.wrong.is_empty(), "seed {seed}: {:#?}\nreplay it: {}", run.wrong, command(seed, STEPS));
        calls += run.answered;
    }
    println!("{SEEDS} seeds: {calls} calls answered");
}

#[test]
fn a_seed_gives_the_same_run_to_the_letter() {
    for seed in [1, 7, 42, 1_000_003] {
        let (first, second) = (replay(seed, 100), replay(seed, 100));
        let differs = first.log.lines().zip(second.log.lines()).find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.log.len(), second.log.len(), "seed {seed}");
        assert!(first.events > 20 && first.answered > 0, "seed {seed} is no story: {}", first.log);
    }
    assert_ne!(replay(1, 30).log, replay(2, 30).log);
}
