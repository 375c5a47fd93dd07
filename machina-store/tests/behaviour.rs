//! The behaviour suite on a SQLite file.

use machina_core::Backend;
use tempfile::TempDir;

struct Fixture {
    backend: Backend,
    _directory: TempDir,
}

impl AsRef<Backend> for Fixture {
    fn as_ref(&self) -> &Backend {
        &self.backend
    }
}

#[allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
async fn sqlite() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("machina.db").display());
    Fixture { backend: machina_store::open(&url).await.unwrap(), _directory: directory }
}

machina_core::store_suite!(sqlite().await);
machina_core::replies_suite!(sqlite().await);
