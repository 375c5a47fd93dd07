//! One row of the table of what must be shown, and figures as people read them.

use std::time::Duration;

/// What one row came to.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What was measured.
    pub(crate) figure: String,
    /// What was to be reached.
    pub(crate) target: &'static str,
    /// Whether it was.
    pub(crate) met: bool,
    /// What must never be, however small the run; empty if nothing of it was.
    pub(crate) broken: Vec<String>,
    /// What the figure rests on: parameters, seed, parts.
    pub(crate) details: Vec<String>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.met { "met" } else { "missed" };
        write!(f, "{:<4} {}  target: {}  {verdict}", self.name, self.figure, self.target)?;
        for broken in &self.broken {
            write!(f, "\n     BROKEN: {broken}")?;
        }
        Ok(())
    }
}

/// The value below which `share` of `sorted` lie; zero of nothing.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = (share * last as f64).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// `p50 … p99 … max …` of `times`.
pub(crate) fn spread(mut times: Vec<Duration>) -> String {
    if times.is_empty() {
        return "none".to_owned();
    }
    times.sort_unstable();
    let [half, most, all] = [0.5, 0.99, 1.0].map(|share| shown(quantile(&times, share)));
    format!("p50 {half}, p99 {most}, max {all}")
}

/// A time in the unit that suits it.
pub(crate) fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds => format!("{:.1} ms", seconds * 1000.0),
    }
}

/// Bytes as megabytes.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    u32::try_from(bytes / 1024).map_or(f64::INFINITY, |kib| f64::from(kib) / 1024.0)
}
