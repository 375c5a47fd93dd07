use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Run {
    restarts: Restarts,
    parameters: SessionParameters,
    now: Instant,
}

impl Run {
    fn new() -> Self {
        Self { restarts: Restarts::default(), parameters: SessionParameters::default(), now: Instant::now() }
    }

    /// It ends, with the worst luck; returns for how long it is held back.
    fn end(&mut self) -> Duration {
        self.restarts.ended(self.now, 1.0, &self.parameters);
        self.restarts.wait(self.now).unwrap_or_default()
    }

    /// It is started as soon as it may be, and holds for so long.
    fn hold(&mut self, time: Duration) {
        self.now += self.restarts.wait(self.now).unwrap_or_default();
        self.restarts.ready(self.now);
        assert_eq!(self.restarts.wait(self.now), None);
        self.now += time;
    }

    fn crash_loop(&self) -> Option<CrashLoop> {
        self.restarts.crash_loop(&self.parameters)
    }
}

#[test]
fn at_once_and_then_after_longer_and_longer() {
    let mut run = Run::new();
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(run.end().as_secs());
        run.hold(SECOND);
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn the_delay_is_left_to_chance() {
    let mut run = Run::new();
    run.end();
    run.end();
    run.restarts.ended(run.now, 0.25, &run.parameters);
    assert_eq!(run.restarts.wait(run.now), Some(SECOND / 2));
    run.restarts.ended(run.now, 0.0, &run.parameters);
    assert_eq!(run.restarts.wait(run.now), None);
}

#[test]
fn one_that_has_held_begins_anew() {
    let mut run = Run::new();
    (0..5).for_each(|_| _ = run.end());
    run.hold(run.parameters.restart_reset - SECOND);
    assert_eq!(run.end(), 16 * SECOND);
    run.hold(run.parameters.restart_reset);
    assert_eq!([run.end(), run.end()], [Duration::ZERO, SECOND]);
}

#[test]
fn one_that_ends_too_often_is_only_started_now_and_then() {
    let mut run = Run::new();
    for _ in 0..run.parameters.crash_loop_restarts {
        run.end();
        assert_eq!(run.crash_loop(), None);
        run.hold(Duration::ZERO);
    }
    assert_eq!(run.end(), run.parameters.crash_loop_interval);
    let text = "the process ended 11 times within 600s and is started every 300s";
    assert_eq!(run.crash_loop().unwrap().to_string(), text);
    run.hold(SECOND);
    assert_eq!(run.crash_loop(), None, "it runs");
    assert_eq!(run.end(), run.parameters.crash_loop_interval, "back in it at once");
    run.now += run.parameters.crash_loop_window * 2;
    assert_eq!(run.end(), run.parameters.crash_loop_interval, "however long ago the others are");
    run.hold(run.parameters.restart_reset);
    assert_eq!((run.end(), run.crash_loop()), (Duration::ZERO, None), "it has held");
}

#[test]
fn being_stopped_is_no_end() {
    let mut run = Run::new();
    for _ in 0..100 {
        run.hold(SECOND);
        run.restarts.stopped(run.now, &run.parameters);
        assert_eq!(run.restarts.wait(run.now), None);
    }
    assert_eq!((run.end(), run.crash_loop()), (Duration::ZERO, None));
    run.end();
    run.hold(run.parameters.restart_reset);
    run.restarts.stopped(run.now, &run.parameters);
    assert_eq!(run.end(), Duration::ZERO, "it had held");
}

proptest! {
    /// Whatever a process does, it is not started more often than it may be.
    #[test]
    fn it_is_never_started_too_often(
        lives in prop::collection::vec((0..400_000_u64, 0.0..1.0_f64, any::<bool>()), 1..120),
        restarts_max in 1..15_u32,
    ) {
        let mut run = Run::new();
        run.parameters.crash_loop_restarts = restarts_max;
        let SessionParameters { crash_loop_window, crash_loop_interval, restart_delay_max, restart_reset, .. } = run.parameters;
        let mut ends: Vec<Instant> = Vec::new();
        for (life, chance, ready) in lives {
            if ready {
                run.hold(Duration::from_millis(life));
            }
            let held = ready && Duration::from_millis(life) >= restart_reset;
            run.restarts.ended(run.now, chance, &run.parameters);
            if held {
                ends.clear();
            }
            ends.push(run.now);
            let wait = run.restarts.wait(run.now).unwrap_or_default();
            let recent = ends.iter().filter(|end| run.now - **end < crash_loop_window).count();
            if recent > restarts_max as usize {
                prop_assert_eq!(wait, crash_loop_interval);
            }
            match run.crash_loop() {
                Some(_) => prop_assert!(wait == crash_loop_interval && ends.len() > restarts_max as usize),
                None => prop_assert!(wait <= restart_delay_max),
            }
            prop_assert!(ends.len() > 1 || wait.is_zero(), "the first restart is not delayed");
            run.now += wait;
            prop_assert_eq!(run.restarts.wait(run.now), None);
        }
    }
}
