//! Binding and serving: only on this machine, and not for longer than wanted.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use axum::{Extension, Router};
use machina_core::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::events::Draining;

/// How long requests that are under way may take after the server was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// Whether the server may listen on `address`: only where nobody but this
/// machine reaches it.
///
/// # Errors
/// [`Unsupported`](machina_core::ErrorKind::Unsupported) for every address that
/// is not a loopback address.
pub fn check_bind(address: SocketAddr) -> Result<()> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "cannot listen on {address}: authentication does not exist yet, so only loopback addresses such as \
         127.0.0.1:8000 are allowed; use an SSH tunnel or a proxy that authenticates to reach the server from elsewhere"
    )))
}

/// Serves `router` until `shutdown` resolves, then lets requests that are under
/// way come to their end for at most 25 seconds. Takes no new connections then,
/// and ends streams of events.
///
/// # Errors
/// As [`check_bind`]; [`Internal`](machina_core::ErrorKind::Internal) when the
/// socket fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    serve_draining(listener, router, shutdown, DRAIN_MAX).await
}

async fn serve_draining(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    drain_max: Duration,
) -> Result<()> {
    let failed = |error: io::Error| Error::internal(format!("the socket fails: {error}")).caused_by(error);
    check_bind(listener.local_addr().map_err(failed)?)?;
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
    });
    let draining = CancellationToken::new();
    let told = draining.clone();
    let router = router.layer(Extension(Draining(draining.clone())));
    let signal = async move {
        shutdown.await;
        told.cancel();
    };
    let served = axum::serve(listener, router).with_graceful_shutdown(signal).into_future();
    let too_long = async {
        draining.cancelled().await;
        tokio::time::sleep(drain_max).await;
    };
    tokio::select! {
        served = served => served.map_err(failed),
        () = too_long => {
            tracing::warn!("some requests were not done {drain_max:?} after the server was told to stop");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn only_loopback_addresses_are_bound() {
        for address in ["127.0.0.1:0", "127.1.2.3:80", "[::1]:8000", "[::ffff:127.0.0.1]:1"] {
            check_bind(address.parse().unwrap()).unwrap();
        }
        for address in ["0.0.0.0:8000", "[::]:8000", "192.168.1.2:80", "[::ffff:10.0.0.1]:1"] {
            let error = check_bind(address.parse().unwrap()).unwrap_err();
            assert!(error.message().contains("authentication does not exist yet"), "{error}");
        }
    }

    #[tokio::test]
    async fn serving_elsewhere_is_refused() {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let error = serve(listener, Router::new(), std::future::pending()).await.unwrap_err();
        assert_eq!(error.kind(), machina_core::ErrorKind::Unsupported);
    }

    /// How long the server lives, and what the client gets, when it is told to
    /// stop while a request takes `takes`.
    async fn stopped_while(takes: Duration, drain_max: Duration) -> (Duration, String) {
        let slow = get(async move || {
            tokio::time::sleep(takes).await;
            "done"
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = serve_draining(listener, Router::new().route("/", slow), stopped, drain_max);
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.cancel();
            let mut answer = String::new();
            let read = tokio::time::timeout(Duration::from_millis(600), stream.read_to_string(&mut answer)).await;
            drop(read);
            answer
        };
        let started = Instant::now();
        let served = async {
            serving.await.unwrap();
            started.elapsed()
        };
        tokio::join!(served, client)
    }

    #[tokio::test]
    async fn requests_under_way_are_finished() {
        let (lived, answer) = stopped_while(Duration::from_millis(300), Duration::from_secs(20)).await;
        assert!(answer.ends_with("done"), "{answer}");
        assert!(lived >= Duration::from_millis(300) && lived < Duration::from_secs(10), "{lived:?}");
    }

    #[tokio::test]
    async fn draining_has_an_end() {
        let (lived, answer) = stopped_while(Duration::from_secs(60), Duration::from_millis(300)).await;
        assert_eq!(answer, "");
        assert!(lived >= Duration::from_millis(300) && lived < Duration::from_secs(10), "{lived:?}");
    }
}
