//! Writing to the embedded store, against memory.

use machina_benches::{compare, heading};
use machina_core::{Backend, Machina, MemoryStore, Mutation, ServiceSpec};

async fn open(backend: Backend) -> Machina {
    Machina::builder().backend(backend).without_monitor().open().await.expect("opens")
}

fn batch(size: usize, turn: u64) -> Vec<Mutation> {
    (0..size)
        .map(|number| {
            let mut spec = ServiceSpec::new(&format!("service-{number}")).expect("valid");
            spec.title = Some(format!("title {turn}"));
            Mutation::Put(spec)
        })
        .collect()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
    let folder = tempfile::tempdir().expect("a folder");
    let (memory, sqlite) = runtime.block_on(async {
        let url = format!("sqlite:{}", folder.path().join("bench.db").display());
        let sqlite = machina_store::open(&url).await.expect("opens");
        (open(Backend::of(MemoryStore::default())).await, open(sqlite).await)
    });
    heading("commit to SQLite (WAL, synchronous)", "the same to memory");
    for size in [1, 100, 1_000] {
        let (mut first, mut second) = (0, 0);
        compare(
            &format!("{size} changed services in one batch"),
            || {
                first += 1;
                runtime.block_on(memory.apply(batch(size, first))).expect("commits")
            },
            || {
                second += 1;
                runtime.block_on(sqlite.apply(batch(size, second))).expect("commits")
            },
        );
    }
    runtime.block_on(async {
        memory.close().await;
        sqlite.close().await;
    });
}
