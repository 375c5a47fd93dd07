//! A store whose replicas wake each other through Redis: sooner than they would ask
//! by themselves, and never instead of it.

use async_trait::async_trait;
use machina_core::{Batch, Changes, Image, Result, Revision, Store};
use std::sync::Arc;

use super::Redis;

/// Any store, and the Redis beside it.
#[derive(Debug)]
pub(super) struct Waking {
    pub(super) store: Arc<dyn Store>,
    pub(super) redis: Redis,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Waking {
    async fn load(&self) -> Result<Image> {
        self.store.load().await
    }

    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        let revision = self.store.commit(batch).await?;
        self.redis.0.link.tell();
        Ok(revision)
    }

    async fn changes(&self, after: Revision) -> Result<Changes> {
        self.store.changes(after).await
    }

    async fn changed(&self) -> Result<()> {
        tokio::select! {
            changed = self.store.changed() => changed,
            () = self.redis.0.link.woken() => Ok(()),
        }
    }

    async fn close(&self) -> Result<()> {
        self.redis.close().await;
        self.store.close().await
    }
}
