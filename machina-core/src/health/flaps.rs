//! Whether an instance goes down and comes back again and again. Pure: `now` is
//! an argument.

use tokio::time::Instant;

use crate::model::HealthParameters;

/// How often an instance went down of late.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Flaps {
    /// When it went down within the window, oldest first; one more than the
    /// threshold says all.
    downs: Vec<Instant>,
    flapping: bool,
}

impl Flaps {
    /// It was up and went down.
    pub(crate) fn went_down(&mut self, now: Instant, parameters: &HealthParameters) {
        let threshold = parameters.flap_threshold as usize;
        self.downs.retain(|down| now.saturating_duration_since(*down) < parameters.flap_window);
        self.downs.push(now);
        let surplus = self.downs.len().saturating_sub(threshold + 1);
        self.downs.drain(..surplus);
        self.flapping |= self.downs.len() > threshold;
    }

    /// Time has passed: it flaps no more when it has not gone down for so long.
    pub(crate) fn pass_time(&mut self, now: Instant, parameters: &HealthParameters) {
        let held = self.downs.last().is_some_and(|last| now.saturating_duration_since(*last) < parameters.flap_hold);
        self.flapping &= held;
    }

    pub(crate) fn is_flapping(&self) -> bool {
        self.flapping
    }

    /// How often it went down within the window, as far as that is counted.
    pub(crate) fn downs(&self) -> u32 {
        u32::try_from(self.downs.len()).unwrap_or(u32::MAX)
    }
}
