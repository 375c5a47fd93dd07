//! One that asks Redis again.

use std::sync::Arc;
use std::time::Duration;

use ::redis::AsyncConnectionConfig;
use ::redis::aio::MultiplexedConnection;
use async_trait::async_trait;
use machina_core::{Admission, Rate, Scratch};
use machina_store::Redis;

use crate::server::is_soon;

/// Asks a second time where there was no answer: on a busy machine even a Redis that
/// is well may take longer than it is waited for.
#[derive(Debug)]
pub(crate) struct Patient {
    redis: Redis,
    /// Looks beside it at the same database, for as long as it takes.
    beside: MultiplexedConnection,
}

impl Patient {
    /// Of a Redis whose database is at `url`.
    pub(crate) async fn of(redis: Redis, url: &str) -> Self {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let client = ::redis::Client::open(url).unwrap();
        let beside = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        Self { redis, beside }
    }

    /// Whether there was no answer, and there may be one now.
    async fn missed(&self) -> bool {
        // Who waits in vain closes the connection.
        let missed = !self.redis.is_connected();
        is_soon(&self.redis, true).await;
        missed
    }

    async fn counted(&self, name: &str) -> Option<String> {
        ::redis::cmd("GET").arg(name).query_async(&mut self.beside.clone()).await.unwrap()
    }

    async fn put_back(&self, name: &str, counted: Option<String>) {
        let command = match counted {
            Some(counted) => ::redis::cmd("SET").arg(name).arg(counted).clone(),
            None => ::redis::cmd("DEL").arg(name).clone(),
        };
        command.exec_async(&mut self.beside.clone()).await.unwrap();
    }
}

#[async_trait]
impl Scratch for Patient {
    async fn take(&self, key: &str, rate: Rate) -> Option<Admission> {
        let name = format!("machina:rate:{key}");
        let before = self.counted(&name).await;
        let taken = self.redis.take(key, rate).await;
        if taken.is_some() || !self.missed().await {
            return taken;
        }
        // It may have been counted all the same.
        self.put_back(&name, before).await;
        self.redis.take(key, rate).await
    }

    async fn get(&self, key: &str) -> Option<Arc<[u8]>> {
        let kept = self.redis.get(key).await;
        if kept.is_some() || !self.missed().await { kept } else { self.redis.get(key).await }
    }

    async fn put(&self, key: &str, value: &[u8], time: Duration) {
        self.redis.put(key, value, time).await;
        if self.missed().await {
            self.redis.put(key, value, time).await;
        }
    }
}
