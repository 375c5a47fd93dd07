//! T11 and T12: one of five instances fails fast, or sometimes, while its probes
//! pass; and what that makes of calls that are not repeated.

use std::time::Duration;

use super::super::Row;
use super::super::calls::{Load, Told};
use super::super::fleet::{Fleet, config};
use super::super::paused;
use super::Size;

/// Calls a second, to a service of five.
const RATE: u32 = 500;

fn one_of_five(name: &'static str, seed: u64, size: Size, share: f64, limit: f64) -> Vec<Row> {
    let time = Duration::from_secs(size.of(60, 600));
    paused(async {
        let fleet = Fleet::open(seed, 1, 5, config(), |spec| spec.routing_policy.attempts_max = Some(1)).await;
        fleet.instances.iter().for_each(|instance| fleet.sims.set_latency(instance, Duration::from_millis(20)));
        let load = Load { service: "s0".to_owned(), rate: RATE, patience: Duration::from_secs(5), tool: "add" };
        // The averages of latency are known when it begins.
        load.offer(&fleet, Duration::from_secs(5)).await;
        fleet.sims.set_failing(&fleet.instances[0], share);
        let calls = load.offer(&fleet, time).await;
        fleet.close().await;
        let failed = calls.iter().filter(|call| call.told != Told::Answered).count();
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let failing = 100.0 * failed as f64 / calls.len() as f64;
        vec![Row {
            name,
            figure: format!("{failing:.4} % failed ({failed} of {} calls)", calls.len()),
            target: format!("≤ {limit} %"),
            met: failing <= limit,
            how: format!(
                "seed {seed}, whole registry, one of five fails {:.0} % of its calls after 1 ms while its probes pass, \
                 {RATE} calls/s of 20 ms for {time:?}, one attempt each",
                share * 100.0
            ),
        }]
    })
}

/// One of five fails every call after a millisecond.
pub(super) fn fails_fast(seed: u64, size: Size) -> Vec<Row> {
    one_of_five("T11", seed, size, 1.0, 0.05)
}

/// One of five fails three calls of ten.
pub(super) fn grey(seed: u64, size: Size) -> Vec<Row> {
    one_of_five("T12", seed, size, 0.3, 0.2)
}
