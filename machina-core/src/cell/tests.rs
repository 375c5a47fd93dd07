use super::*;
use crate::health::{CrashLoop, ReasonCode};

const SOFT: ProbeOutcome = ProbeOutcome::Fail { hard: false };
const HARD: ProbeOutcome = ProbeOutcome::Fail { hard: true };

fn cell() -> Cell {
    Cell::new(Arc::default())
}

fn see(cell: &Cell, outcome: ProbeOutcome) -> Recorded {
    let message = if matches!(outcome, ProbeOutcome::Fail { .. }) { "no answer" } else { "" };
    cell.record(cell.ticket(), Observation::new(outcome, message), Circumstances::default())
}

fn pass(cell: &Cell) -> Recorded {
    cell.record(cell.ticket(), Observation::pass(Duration::from_millis(2)), Circumstances::default())
}

async fn wait(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

fn assert_share(cell: &Cell, expected: f64) {
    let share = cell.share();
    assert!((share - expected).abs() < 1e-6, "{share}, not {expected}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_began_before_newer_evidence_is_stale() {
    let cell = cell();
    let probe = cell.ticket();
    pass(&cell);
    let late = cell.record(probe, Observation::new(HARD, "exited"), Circumstances::default());
    assert_eq!(late.health.state, HealthState::Healthy);
    assert!(!late.visible);
}

#[tokio::test(start_paused = true)]
async fn the_reason_and_the_count_are_reported() {
    let cell = cell();
    pass(&cell);
    assert_eq!(cell.health().response_time_ms, Some(2.0));
    let failed = see(&cell, SOFT);
    assert_eq!(failed.transition, Some((HealthState::Healthy, HealthState::Suspect)));
    assert_eq!((failed.health.consecutive_failures, failed.health.reason.code), (1, ReasonCode::Failing));
    let passed = pass(&cell);
    assert_eq!((passed.health.consecutive_failures, passed.health.reason.message.as_str()), (0, ""));
}

#[tokio::test(start_paused = true)]
async fn a_recent_answer_replaces_a_probe_only_for_a_while() {
    let cell = cell();
    assert_eq!(cell.since_last_pass(), None);
    pass(&cell);
    assert!(cell.answered_within(Duration::from_secs(15)));
    wait(15).await;
    assert!(!cell.answered_within(Duration::from_secs(15)));
    assert_eq!(cell.since_last_pass(), Some(Duration::from_secs(15)));
}

#[tokio::test(start_paused = true)]
async fn one_that_came_back_gets_its_share_little_by_little() {
    let cell = cell();
    pass(&cell);
    assert_share(&cell, 1.0);
    see(&cell, HARD);
    assert_share(&cell, 1.0);
    pass(&cell);
    assert_share(&cell, 0.1);
    see(&cell, SOFT);
    wait(15).await;
    assert_share(&cell, 0.55);
    wait(15).await;
    assert_share(&cell, 1.0);
}

#[tokio::test(start_paused = true)]
async fn the_first_start_is_slow_only_beside_others_that_are_in_use() {
    let joining = Cell::joining(Arc::default());
    see(&joining, SOFT);
    pass(&joining);
    assert_share(&joining, 0.1);

    let first = cell();
    see(&first, HARD);
    wait(600).await;
    pass(&first);
    assert_share(&first, 1.0);
}

#[tokio::test(start_paused = true)]
async fn one_that_goes_down_again_starts_slowly_again() {
    let cell = cell();
    for outcome in [ProbeOutcome::Pass, HARD, ProbeOutcome::Pass] {
        see(&cell, outcome);
    }
    wait(20).await;
    see(&cell, HARD);
    assert_share(&cell, 1.0);
    pass(&cell);
    assert_share(&cell, 0.1);
}

#[tokio::test(start_paused = true)]
async fn one_that_flaps_says_so_and_starts_half_as_fast() {
    let cell = cell();
    pass(&cell);
    for _ in 0..3 {
        assert_eq!(see(&cell, HARD).flapping, None);
        pass(&cell);
    }
    let down = see(&cell, HARD);
    assert_eq!(down.flapping, Some(Flapping::Began { downs: 4 }));
    assert!(down.health.flapping && down.visible);
    let why = "no answer; it goes down again and again, and has to pass 5 times in a row";
    assert_eq!(down.health.reason.message, why);
    let back: Vec<_> = (0..5).map(|_| pass(&cell).health.state).collect();
    assert_eq!(back[3..], [HealthState::Recovering, HealthState::Healthy]);
    wait(30).await;
    assert_share(&cell, 0.55);

    assert!(cell.pass_time().is_none());
    wait(15 * 60).await;
    let ended = cell.pass_time().unwrap();
    assert_eq!((ended.flapping, ended.transition, ended.visible), (Some(Flapping::Ended), None, true));
    assert!(!cell.health().flapping);
    assert!(cell.pass_time().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_last_words_stay_until_it_answers() {
    let cell = cell();
    let dying = Observation { stderr_tail: "out of memory".to_owned(), ..Observation::new(HARD, "exit 1") };
    cell.record(cell.ticket(), dying, Circumstances::default());
    see(&cell, SOFT);
    assert_eq!(cell.stderr_tail(), "out of memory");
    cell.keep_stderr_tail("killed".to_owned());
    see(&cell, ProbeOutcome::Inconclusive);
    assert_eq!(cell.stderr_tail(), "killed");
    pass(&cell);
    assert_eq!(cell.stderr_tail(), "");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_explained() {
    let cell = cell();
    see(&cell, HARD);
    let minute = Duration::from_secs(60);
    let crash_loop = Some(CrashLoop { ends: 11, window: 10 * minute, interval: 5 * minute });
    let looping =
        cell.record(cell.ticket(), Observation::new(HARD, "exit 1"), Circumstances { frozen: false, crash_loop });
    assert_eq!(looping.transition, Some((HealthState::Unhealthy, HealthState::CrashLoop)));
    let why = "exit 1; the process ended 11 times within 600s and is started every 300s";
    assert_eq!(looping.health.reason.message, why);
    let started = pass(&cell);
    assert_eq!(started.health.state, HealthState::CrashLoop);
    assert_eq!(started.health.reason.message, "it was started once more and answers");
    assert_eq!(pass(&cell).transition, Some((HealthState::CrashLoop, HealthState::Healthy)));
    assert_eq!(cell.health().reason.message, "");
}
