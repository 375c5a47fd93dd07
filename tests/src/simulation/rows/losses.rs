//! T1 and T2: what losses of single packets and of bursts make of well instances,
//! on the pure machine.

use std::time::Duration;

use machina_core::HealthParameters;
use machina_core::testing::simulation::{bursts as burst, losses};

use super::super::Row;
use super::Size;

/// Well instances while one attempt in a hundred is lost.
pub(super) fn scattered(seed: u64, size: Size) -> Vec<Row> {
    let (probes, instances) = (size.of(1_000_000, 100_000_000), 10_000);
    let seen = losses(seed, instances, probes, 0.01, &HealthParameters::default());
    vec![Row {
        name: "T1",
        figure: format!(
            "{} false ejections in {} probes ({} attempts lost, {} probes failed)",
            seen.ejections, seen.probes, seen.lost, seen.failed
        ),
        target: "0".to_owned(),
        met: seen.ejections == 0 && seen.lost > probes / 200,
        how: format!("seed {seed}, the pure machine with its confirm attempt, {instances} instances, 1 % loss"),
    }]
}

/// Well instances, each with a burst of 20 s in which 60 % of all attempts are lost.
pub(super) fn bursts(seed: u64, size: Size) -> Vec<Row> {
    let count = size.of(20_000, 2_000_000);
    let length = Duration::from_secs(20);
    let seen = burst(seed, count, length, 0.6, &HealthParameters::default());
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let rate = seen.ejections as f64 * 1e6 / count as f64;
    vec![Row {
        name: "T2",
        figure: format!("{rate:.1} ejections per 10^6 bursts ({} in {count})", seen.ejections),
        target: "≤ 30 per 10^6".to_owned(),
        met: rate <= 30.0 && seen.failed > count / 100,
        how: format!(
            "seed {seed}, the pure machine, one burst of 20 s of 60 % loss per instance, {} probes",
            seen.probes
        ),
    }]
}
