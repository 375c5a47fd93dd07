//! Over TLS, with an authority of one's own. Which authorities are trusted is
//! decided by the environment of a process, so each case is a process.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use machina_core::Scratch as _;
use machina_store::Redis;

use crate::server::OwnRedis;

/// The address for a process that this test starts.
const URL: &str = "MACHINA_TEST_REDIS_CHILD_URL";

/// Whether a process that trusts the authorities in `trusted` gets a connection.
fn connects(url: &str, trusted: &Path) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tls::the_child_of_the_other_test"]).env(URL, url).env("SSL_CERT_FILE", trusted);
    let output = command.env_remove("SSL_CERT_DIR").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("connected: "), "{text}");
    text.contains("connected: true")
}

#[test]
fn tls_takes_only_certificates_of_a_trusted_authority() {
    let (server, other) = (OwnRedis::start(), OwnRedis::start());
    assert!(connects(&server.tls_url(), &server.authority()));
    assert!(!connects(&server.tls_url(), &other.authority()), "signed by another authority");
    let nobody = server.tls_url().replace("localhost", "ip6-localhost");
    assert!(!connects(&nobody, &server.authority()), "made out to another name");
    let plain = server.url().replace("redis://", "rediss://");
    assert!(!connects(&plain, &server.authority()), "no TLS at all");
}

/// Does nothing unless the other test starts it.
#[tokio::test]
async fn the_child_of_the_other_test() {
    let Some(url) = std::env::var_os(URL) else { return };
    let redis = Redis::open(url.to_str().unwrap()).await.unwrap();
    let connected = redis.is_connected();
    if connected {
        redis.put("x", b"y", std::time::Duration::from_secs(1)).await;
        assert!(redis.get("x").await.is_some());
    }
    // Past the harness, which keeps what a passing test prints to itself.
    writeln!(std::io::stderr(), "connected: {connected}").unwrap();
}
