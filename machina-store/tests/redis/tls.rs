//! Over TLS, with an authority of one's own. Which authorities are trusted is
//! decided by the environment of a process, so each case is a process.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use machina_core::Scratch as _;
use machina_store::Redis;
use tokio::time::timeout;

use crate::server::{OwnRedis, is_soon};

const PATIENCE: Duration = Duration::from_secs(15);

/// The address for a process that this test starts.
const URL: &str = "MACHINA_TEST_REDIS_CHILD_URL";

/// What that process is to find: `true` or `false`.
const EXPECTED: &str = "MACHINA_TEST_REDIS_CHILD_CONNECTS";

/// Whether a process that trusts the authorities in `trusted` gets a connection.
fn connects(url: &str, trusted: &Path, expected: bool) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tls::the_child_of_the_other_test"]).env(URL, url).env("SSL_CERT_FILE", trusted);
    command.env(EXPECTED, expected.to_string());
    let output = command.env_remove("SSL_CERT_DIR").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("connected: "), "{text}");
    text.contains("connected: true")
}

#[test]
fn tls_takes_only_certificates_of_a_trusted_authority() {
    let (server, other) = (OwnRedis::start(), OwnRedis::start());
    assert!(connects(&server.tls_url(), &server.authority(), true));
    assert!(!connects(&server.tls_url(), &other.authority(), false), "signed by another authority");
    let nobody = server.tls_url().replace("localhost", "ip6-localhost");
    assert!(!connects(&nobody, &server.authority(), false), "made out to another name");
    let plain = server.url().replace("redis://", "rediss://");
    assert!(!connects(&plain, &server.authority(), false), "no TLS at all");
}

/// Returns once something was kept and found, which may take a busy machine more than one attempt.
async fn keeps(redis: &Redis) {
    loop {
        redis.put("x", b"y", PATIENCE).await;
        if redis.get("x").await.is_some() {
            return;
        }
        is_soon(redis, true).await;
    }
}

/// Does nothing unless the other test starts it.
#[tokio::test]
async fn the_child_of_the_other_test() {
    let Some(url) = std::env::var_os(URL) else { return };
    let redis = Redis::open(url.to_str().unwrap()).await.unwrap();
    if std::env::var_os(EXPECTED).unwrap() == "true" {
        is_soon(&redis, true).await;
    }
    let connected = redis.is_connected();
    if connected {
        timeout(PATIENCE, keeps(&redis)).await.expect("what is kept is found");
    }
    // Past the harness, which keeps what a passing test prints to itself.
    writeln!(std::io::stderr(), "connected: {connected}").unwrap();
}
