//! Measures two things in turn, A B A B …, and prints the median of each with
//! the ratio: on a noisy machine only figures of one run can be compared.
//!
//! Own code because criterion and divan report each benchmark by itself and
//! neither prints a ratio between two of one run.

pub mod load;
pub mod upstream;

use std::hint::black_box;
use std::time::Duration;

// A benchmark measures real time; tokio's clock, which tests may pause, would do
// the same with more overhead.
#[allow(clippy::disallowed_types, reason = "benchmarks measure real time")]
pub(crate) type Clock = std::time::Instant;

/// The middle of `times`, and the time that 99 in 100 of them do not exceed.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn quantiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// The middle of some figures.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn middle(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Rounds that are counted; each measures both sides.
const ROUNDS: usize = 31;

/// How long one side of a round runs at least.
const ROUND: Duration = Duration::from_millis(20);

/// Times `subject` against `baseline` and prints a line with both medians, the
/// subject's 99th percentile over rounds, and the ratio of the medians.
pub fn compare<A, B>(name: &str, mut baseline: impl FnMut() -> A, mut subject: impl FnMut() -> B) {
    let (base_count, count) = (calibrate(&mut baseline), calibrate(&mut subject));
    let (mut base, mut times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        base.push(time(&mut baseline, base_count));
        times.push(time(&mut subject, count));
    }
    let (base, time) = (median(&mut base), median(&mut times));
    let worst = times[times.len() - 1];
    let ratio = time.as_secs_f64() / base.as_secs_f64();
    show(&format!("{name:<58} {:>11} {:>11} {:>11} {ratio:>8.2}", text(base), text(time), text(worst)));
}

/// Prints the heading of the lines that [`compare`] prints.
pub fn heading(subject: &str, baseline: &str) {
    show(&format!("\n{subject}\n  baseline: {baseline}"));
    show(&format!("{:<58} {:>11} {:>11} {:>11} {:>8}", "", "baseline", "median", "slowest", "ratio"));
}

/// Prints a line.
#[allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]
pub fn show(line: &str) {
    println!("{line}");
}

fn calibrate<T>(f: &mut impl FnMut() -> T) -> u32 {
    let mut count = 1;
    loop {
        let elapsed = time(f, count) * count;
        if elapsed >= ROUND || count >= 1 << 24 {
            return count;
        }
        count *= 2;
    }
}

/// The time of one call, averaged over `count`.
fn time<T>(f: &mut impl FnMut() -> T, count: u32) -> Duration {
    let started = Clock::now();
    for _ in 0..count {
        black_box(f());
    }
    started.elapsed() / count
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn text(time: Duration) -> String {
    match time.as_nanos() {
        nanos @ 0..10_000 => format!("{nanos} ns"),
        nanos @ 10_000..10_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        nanos => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}
