//! How the sessions with a service's instances are kept, and how often a process
//! that ends is started anew (`reliability.md` §3).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Problem;
use crate::parameters::{DAY, HOUR, MILLISECOND, MINUTE, SECOND, between, parameters};

/// When instances that are not in use are started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StartPolicy {
    /// Each is started once, to see that it works.
    #[default]
    Eager,
    /// Only those whose tools are not known yet; the others when they are called.
    Lazy,
}

parameters! {
    /// How the sessions with a service's instances are kept.
    policy SessionPolicy in "session_policy" {}
    /// Defaults of [`SessionPolicy`], and the limits of all sessions.
    config SessionsConfig in "sessions" {
        /// How long closing everything may take.
        #[serde(with = "crate::parameters::required")]
        close_timeout: Duration = SECOND * 10,
    }
    /// What holds for the sessions of one service; see [`SessionPolicy`].
    parameters SessionParameters;
    durations {
        /// A child process that was not called for this long is stopped; it starts
        /// again with the next call. 1 s to 1 day.
        idle_timeout = MINUTE * 15, SECOND => DAY;
        /// How long a connection to an instance that is no child process may take;
        /// 100 ms to 1 min.
        connect_timeout = SECOND * 2, MILLISECOND * 100 => MINUTE;
        /// How long the start of a child process may take that has answered before;
        /// a new one has `startup_grace`. 1 s to 15 min.
        start_timeout = SECOND * 30, SECOND => MINUTE * 15;
        /// A process that ends is started anew at once, the next time after up to
        /// 1 s, and each further time after up to twice as long, but never longer
        /// than this; 1 s to 1 h.
        restart_delay_max = MINUTE, SECOND => HOUR;
        /// After so long without ending, a process that ends is again started at
        /// once; 1 s to 1 day.
        restart_reset = MINUTE * 5, SECOND => DAY;
        /// The time over which restarts are counted; 1 s to 1 day.
        crash_loop_window = MINUTE * 10, SECOND => DAY;
        /// How often a process in a crash loop is still started; 1 s to 1 day.
        crash_loop_interval = MINUTE * 5, SECOND => DAY;
    }
    counts {
        /// A process that ended more often than this within the window is in a
        /// crash loop; 1 to 1000.
        crash_loop_restarts = 10, 1 => 1000;
        /// How many instances are kept running though no one calls them; 0 to 64.
        warm = 0, 0 => 64;
    }
    words {
        /// When instances are started.
        start: StartPolicy = StartPolicy::Eager;
    }
}

impl SessionPolicy {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        self.check_ranges(problems);
    }
}

impl SessionsConfig {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        self.check_ranges(problems);
        between("sessions.close_timeout", Some(self.close_timeout), SECOND, MINUTE, problems);
    }
}
