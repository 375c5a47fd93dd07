//! What is told of Redis: once, and without its password.

use std::cell::RefCell;
use std::io;
use std::sync::Once;
use std::time::Duration;

use machina_core::{ErrorKind, Rate, Scratch as _};
use machina_store::Redis;
use tokio::time::{Instant, sleep};
use tracing_subscriber::EnvFilter;

use crate::ports;
use crate::server::{OwnRedis, is_soon};

thread_local! {
    /// What was told on this thread, once somebody asked for it.
    static TOLD: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// The log of one test: what is told on its thread. There is one subscriber for all
/// of them, because those that come and go at the same time make each other miss
/// something.
#[derive(Debug, Clone, Copy)]
struct Log;

impl Log {
    fn begin() -> Self {
        static BEGUN: Once = Once::new();
        BEGUN.call_once(|| {
            let all = EnvFilter::new("machina_store=trace,redis=trace");
            tracing_subscriber::fmt().with_env_filter(all).with_writer(|| Self).with_ansi(false).init();
        });
        TOLD.set(Some(Vec::new()));
        Self
    }

    fn text(self) -> String {
        TOLD.with_borrow(|told| String::from_utf8(told.clone().unwrap()).unwrap())
    }

    fn lines(self, word: &str) -> usize {
        self.text().lines().filter(|line| line.contains(word)).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        TOLD.with_borrow_mut(|told| told.iter_mut().for_each(|told| told.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_loss_is_told_once_and_so_is_its_end() {
    let log = Log::begin();
    let mut server = OwnRedis::start();
    let redis = Redis::open(&server.url()).await.unwrap();
    is_soon(&redis, true).await;
    assert_eq!(log.lines("WARN") + log.lines("INFO"), 0, "{}", log.text());

    server.order("kill");
    is_soon(&redis, false).await;
    for _ in 0..1000 {
        assert!(redis.get("x").await.is_none());
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(log.lines("WARN"), 1, "{}", log.text());
    server.order("start");
    is_soon(&redis, true).await;
    assert_eq!((log.lines("WARN"), log.lines("takes part again")), (1, 1), "{}", log.text());
    assert!(!log.text().contains(&server.password()), "{}", log.text());
    assert!(!format!("{redis:?}").contains(&server.password()), "{redis:?}");
    redis.close().await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_holds_nothing_up() {
    let log = Log::begin();
    let server = OwnRedis::start();
    let begun = Instant::now();
    let redis = Redis::open(&server.url().replace(&server.password(), "hunter2")).await.unwrap();
    assert!(!redis.is_connected() && begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(redis.take("x", Rate { per_minute: 1, burst: 1 }).await.is_none());
    sleep(Duration::from_secs(1)).await;
    let text = log.text();
    assert_eq!(log.lines("WARN"), 1, "{text}");
    assert!(text.contains("refuses the user or the password"), "{text}");
    assert!(text.contains("redis://127.0.0.1:") && !text.contains("hunter2"), "{text}");
    redis.close().await;
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_told_and_holds_nothing_up() {
    let log = Log::begin();
    let closed = ports::closed();
    let address = closed.local_addr().unwrap();
    let begun = Instant::now();
    let redis = Redis::open(&format!("redis://default:hunter2@{address}/0")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(!redis.is_connected());
    assert_eq!(log.lines("WARN"), 1, "{}", log.text());
    assert!(log.text().contains("does not take part") && !log.text().contains("hunter2"), "{}", log.text());
    redis.close().await;
}

#[tokio::test]
async fn what_is_no_address_of_a_redis_is_refused() {
    for url in ["http://localhost", "redis://:hunter2@", "redis://h/x", ""] {
        let error = Redis::open(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        Redis::check_address(url).unwrap_err();
    }
    Redis::check_address("rediss://u:p@h.example:1/2").unwrap();
}
