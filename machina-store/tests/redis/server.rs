//! The servers: see `tests/backing`.

use std::path::PathBuf;
use std::time::Duration;

use machina_store::Redis;
use tokio::time::{Instant, sleep};

use super::started::Started;

/// The Redis that all tests share.
pub(crate) fn shared_url() -> String {
    let url = std::env::var_os("MACHINA_TEST_REDIS_URL").expect(
        "MACHINA_TEST_REDIS_URL is not set: run this under `python3 tests/backing/run.py -- cargo test …`, or set it \
         to the address of a Redis",
    );
    url.into_string().expect("the address is text")
}

/// A database of it, so that a test is woken by nobody else.
pub(crate) fn database(number: u32) -> String {
    let url = shared_url();
    let (scheme, rest) = url.split_once("://").expect("it is an address");
    format!("{scheme}://{}/{number}", rest.split('/').next().unwrap_or_default())
}

/// A Redis of one test, gone with it.
#[derive(Debug)]
pub(crate) struct OwnRedis(Started);

impl OwnRedis {
    pub(crate) fn start() -> Self {
        Self(Started::of("redis"))
    }

    pub(crate) fn url(&self) -> String {
        self.0.told("MACHINA_TEST_REDIS_URL").to_owned()
    }

    pub(crate) fn tls_url(&self) -> String {
        self.0.told("MACHINA_TEST_REDIS_TLS_URL").to_owned()
    }

    /// The file of the authority of its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.0.told("MACHINA_TEST_REDIS_CA").into()
    }

    pub(crate) fn password(&self) -> String {
        let url = self.url();
        url.split_once("default:").unwrap().1.split_once('@').unwrap().0.to_owned()
    }

    /// `kill`, `stop`, `start`, `pause` or `resume`.
    pub(crate) fn order(&mut self, order: &str) {
        self.0.order(order);
    }
}

/// A connection with the Redis that all share.
pub(crate) async fn connected() -> Redis {
    connected_to(&shared_url()).await
}

pub(crate) async fn connected_to(url: &str) -> Redis {
    let redis = Redis::open(url).await.unwrap();
    is_soon(&redis, true).await;
    redis
}

/// Waits until there is a connection, or none.
pub(crate) async fn is_soon(redis: &Redis, connected: bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while redis.is_connected() != connected {
        assert!(Instant::now() < end, "{redis:?} is not connected: {connected}");
        sleep(Duration::from_millis(5)).await;
    }
}
