//! T24: ten thousand instances that are known already are no herd at the start.

use std::sync::Arc;
use std::time::Duration;

use machina_core::testing::SimConnector;
use machina_core::{Backend, Instance, Machina, MemoryReplies, MemoryStore, Mutation, ServiceSpec};

use super::super::fleet::{Fleet, config};
use super::super::{Row, paused};
use super::Size;

fn backend(store: &Arc<MemoryStore>) -> Backend {
    Backend {
        store: store.clone(),
        journal: store.clone(),
        replies: Arc::new(MemoryReplies::new()),
        leases: None,
        scratch: None,
    }
}

/// Probes that begin in the same tenth of a second, by the time since the start.
pub(super) fn herd(seed: u64, size: Size) -> Vec<Row> {
    let count: u32 = size.of(1_000, 10_000);
    paused(async {
        let store = Arc::new(MemoryStore::default());
        let sims = SimConnector::seeded(seed);
        let instances: Vec<Instance> = (0..count).map(|number| sims.instance(&format!("i{number}"))).collect();
        let first = Machina::builder().config(config()).backend(backend(&store)).connector(Arc::new(sims.clone()));
        let first = first.open().await.expect("a registry in memory opens");
        let specs = instances.iter().enumerate().map(|(number, instance)| {
            let spec = ServiceSpec::new(&format!("s{number}")).expect("a valid name");
            Mutation::Register(spec.instance(instance.clone()))
        });
        first.apply(specs.collect()).await.expect("are registered");
        tokio::time::sleep(Duration::from_secs(60)).await;
        first.close().await;
        let fleet = Fleet::of(seed, sims, instances, backend(&store), config()).await;
        let interval = fleet.parameters.interval;
        tokio::time::sleep(interval).await;
        let (largest, all) =
            fleet.seen(|seen| (seen.herd.iter().max().copied().unwrap_or(0), seen.herd.iter().sum::<u32>()));
        fleet.close().await;
        let uniform = f64::from(count) / (interval.as_secs_f64() * 10.0);
        // Six standard deviations of a Poisson process.
        let limit = 6.0f64.mul_add(uniform.sqrt(), uniform);
        vec![Row {
            name: "T24",
            figure: format!("at most {largest} probes begin within 100 ms ({all} within the first interval)"),
            target: format!("≤ {limit:.0} (uniform {uniform:.1} + 6 σ)"),
            met: f64::from(largest) <= limit && all >= count,
            how: format!("seed {seed}, whole registry, start with {count} known instances"),
        }]
    })
}
