//! A latency average that follows peaks at once and forgets them slowly
//! (Peak-EWMA, as in Finagle and tower). Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::RoutingParameters;

/// The average of one instance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ewma {
    /// In seconds, and since when; none before the first call.
    observed: Option<(f64, Instant)>,
}

impl Ewma {
    pub(crate) fn observe(&mut self, latency: Duration, now: Instant, parameters: &RoutingParameters) {
        let latency = latency.as_secs_f64();
        let average = match self.observed {
            Some((before, since)) if latency < before => {
                let weight = weight(now.saturating_duration_since(since), parameters);
                before * weight + latency * (1.0 - weight)
            }
            _ => latency,
        };
        self.observed = Some((average, now));
    }

    /// The latency is at least this: a peak counts, anything less says nothing.
    pub(crate) fn at_least(&mut self, latency: Duration, now: Instant) {
        if self.observed.is_none_or(|(before, _)| latency.as_secs_f64() > before) {
            self.observed = Some((latency.as_secs_f64(), now));
        }
    }

    /// The last average in seconds, and since when it stands.
    pub(crate) fn observed(&self) -> Option<(f64, Instant)> {
        self.observed
    }
}

/// What an average of `seconds` that is `age` old comes to now: what lies above
/// the default decays towards it, so that an instance that once failed is tried
/// again.
pub(crate) fn faded(seconds: f64, age: Duration, parameters: &RoutingParameters) -> f64 {
    let default = parameters.latency_default.as_secs_f64();
    if seconds <= default {
        return seconds;
    }
    (seconds - default).mul_add(weight(age, parameters), default)
}

fn weight(age: Duration, parameters: &RoutingParameters) -> f64 {
    (-age.as_secs_f64() / parameters.latency_decay.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn value(ewma: &Ewma, now: Instant, parameters: &RoutingParameters) -> f64 {
        let (seconds, since) = ewma.observed().unwrap();
        faded(seconds, now - since, parameters)
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let (now, parameters) = (Instant::now(), RoutingParameters::default());
        let mut ewma = Ewma::default();
        ewma.observe(SECOND * 5, now, &parameters);
        assert!((value(&ewma, now, &parameters) - 5.0).abs() < 1e-9);
        let later = value(&ewma, now + SECOND * 10, &parameters);
        assert!(later < 2.0 && later > 1.0, "{later}");
        assert!(value(&ewma, now + SECOND * 100, &parameters) < 0.031);
        let quick = RoutingParameters { latency_decay: SECOND, ..parameters };
        assert!(value(&ewma, now + SECOND * 10, &quick) < 0.031, "as the service has it");
    }

    #[test]
    fn a_call_that_was_given_up_says_only_that_it_would_have_taken_longer() {
        let (now, parameters) = (Instant::now(), RoutingParameters::default());
        let mut ewma = Ewma::default();
        ewma.observe(SECOND, now, &parameters);
        ewma.at_least(SECOND / 2, now + SECOND);
        assert_eq!(ewma.observed(), Some((1.0, now)));
        ewma.at_least(SECOND * 2, now + SECOND);
        assert_eq!(ewma.observed(), Some((2.0, now + SECOND)));
    }

    proptest! {
        #[test]
        fn the_average_stays_between_what_was_seen(
            steps in prop::collection::vec((0..60_000_u64, 0..20_000_u64), 1..50),
        ) {
            let parameters = RoutingParameters::default();
            let (mut now, mut ewma) = (Instant::now(), Ewma::default());
            let (mut least, mut most) = (f64::MAX, 0.0_f64);
            for (latency, pause) in steps {
                now += Duration::from_millis(pause);
                let latency = Duration::from_millis(latency);
                ewma.observe(latency, now, &parameters);
                least = least.min(latency.as_secs_f64());
                most = most.max(latency.as_secs_f64());
                let value = value(&ewma, now, &parameters);
                prop_assert!(value >= least - 1e-9 && value <= most + 1e-9, "{value}");
                prop_assert!(value >= latency.as_secs_f64() - 1e-9, "a peak counts at once");
            }
        }
    }
}
