//! Binding and serving: only on this machine, and not for longer than wanted.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use machina_core::{Error, Result, Tasks};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::config::ServerConfig;
use super::connection::Door;

/// How long requests that are under way may take after the server was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// How long the server waits when no connection can be taken, such as when there
/// are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

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

/// How far a server is from its end. Every request has it among its extensions,
/// for what has no end of its own: streams and WebSockets.
#[derive(Debug, Clone, Default)]
pub(super) struct Stopping {
    announced: CancellationToken,
    drained: CancellationToken,
    /// What `drained` says, at the price of a look.
    flag: Arc<AtomicBool>,
    /// What the end of the server waits for.
    pub(super) tasks: Tasks,
}

impl Stopping {
    /// Whether the server was told to stop: it is ready for nothing new.
    pub(super) fn is_announced(&self) -> bool {
        self.announced.is_cancelled()
    }

    /// Whether only what runs is answered.
    pub(super) fn is_draining(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Resolves when only what runs is answered.
    pub(super) async fn draining(&self) {
        self.drained.cancelled().await;
    }

    fn drain(&self) {
        self.flag.store(true, Ordering::Release);
        self.drained.cancel();
    }
}

/// Serves `router` until `shutdown` resolves, as [`router`](crate::router())
/// makes it or with others around it. Then `/readyz` answers 503, and after
/// `config.shutdown_delay` no more connections are taken, those that are idle or
/// have sent half a request are closed, streams end, and requests that are under
/// way come to their end for at most 25 seconds.
///
/// # Errors
/// As [`check_bind`]; [`Internal`](machina_core::ErrorKind::Internal) when the
/// socket fails.
pub fn serve<S: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    router: Router,
    config: &ServerConfig,
    shutdown: S,
) -> impl Future<Output = Result<()>> + Send + use<S> {
    serve_draining(listener, router, config.clone(), shutdown, DRAIN_MAX)
}

async fn serve_draining(
    listener: TcpListener,
    router: Router,
    config: ServerConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
    drain_max: Duration,
) -> Result<()> {
    let failed = |error: io::Error| Error::internal(format!("the socket fails: {error}")).caused_by(error);
    check_bind(listener.local_addr().map_err(failed)?)?;
    let stopping = Stopping::default();
    let door = Arc::new(Door::new(router, &config, stopping.clone()));
    let signal = async {
        shutdown.await;
        stopping.announced.cancel();
        tokio::time::sleep(config.shutdown_delay).await;
    };
    tokio::select! {
        () = signal => {}
        () = admit(&listener, &door, &stopping.tasks, config.connections_max) => {}
    }
    drop(listener);
    stopping.drain();
    if !stopping.tasks.finish(drain_max).await {
        tracing::warn!("some requests were not done {drain_max:?} after the server was told to stop");
    }
    Ok(())
}

/// Takes connections for as long as it is polled, and no more than there are places.
async fn admit(listener: &TcpListener, door: &Arc<Door>, tasks: &Tasks, connections_max: usize) {
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => drop(tasks.spawn("connection", Arc::clone(door).attend(stream, place))),
            Err(error) if is_of_the_peer(&error) => tracing::debug!(%error, "a connection was given up by its peer"),
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken; the next try is in {ACCEPT_PAUSE:?}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;
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
        let error = serve(listener, Router::new(), &ServerConfig::default(), std::future::pending()).await.unwrap_err();
        assert_eq!(error.kind(), machina_core::ErrorKind::Unsupported);
    }

    /// How long the server lives, and what the client gets for as long as it is
    /// patient, when the server is told to stop while a request takes `takes`.
    async fn stopped_while(takes: Duration, drain_max: Duration, patience: Duration) -> (Duration, String) {
        let begun = Arc::new(Notify::new());
        let begins = Arc::clone(&begun);
        let slow = get(async move || {
            begins.notify_one();
            tokio::time::sleep(takes).await;
            "done"
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, config) = (CancellationToken::new(), ServerConfig::default());
        let stopped = stop.clone().cancelled_owned();
        let serving = serve_draining(listener, Router::new().route("/", slow), config, stopped, drain_max);
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            begun.notified().await;
            stop.cancel();
            let mut answer = String::new();
            drop(tokio::time::timeout(patience, stream.read_to_string(&mut answer)).await);
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
        let (takes, patience) = (Duration::from_millis(300), Duration::from_secs(10));
        let (lived, answer) = stopped_while(takes, Duration::from_secs(20), patience).await;
        assert!(answer.ends_with("done"), "{answer}");
        assert!(lived >= takes && lived < Duration::from_secs(10), "{lived:?}");
    }

    #[tokio::test]
    async fn draining_has_an_end() {
        let (takes, patience) = (Duration::from_secs(60), Duration::from_millis(600));
        let (lived, answer) = stopped_while(takes, Duration::from_millis(300), patience).await;
        assert_eq!(answer, "");
        assert!(lived >= Duration::from_millis(300) && lived < Duration::from_secs(10), "{lived:?}");
    }
}
