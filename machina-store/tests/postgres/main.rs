//! A real PostgreSQL: the behaviour suites, and what they cannot see. Run it under
//! `tests/backing/run.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod asking;
mod dumps;
mod faults;
mod heartbeats;
mod indexes;
mod journal;
mod making;
mod opening;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/probes.rs"]
mod probes;
mod replicas;
mod schema;
mod server;
#[path = "../support/started.rs"]
mod started;
mod tables;
mod together;

use machina_core::Backend;

use self::schema::Schema;

struct Fixture {
    backend: Backend,
    _schema: Schema,
}

impl AsRef<Backend> for Fixture {
    fn as_ref(&self) -> &Backend {
        &self.backend
    }
}

async fn postgres() -> Fixture {
    let schema = Schema::new();
    Fixture { backend: machina_store::open(&schema.url()).await.unwrap(), _schema: schema }
}

machina_core::store_suite!(postgres().await);
machina_core::replies_suite!(postgres().await);
machina_core::leases_suite!(postgres().await);
