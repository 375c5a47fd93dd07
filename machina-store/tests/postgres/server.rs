//! A PostgreSQL of one test, gone with it: see `tests/backing`. And a way to a
//! server that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use machina_core::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::started::Started;

#[derive(Debug)]
pub(crate) struct OwnPostgres(Started);

impl OwnPostgres {
    pub(crate) fn start() -> Self {
        Self(Started::of("postgres"))
    }

    pub(crate) fn url(&self) -> String {
        self.0.told("MACHINA_TEST_POSTGRES_URL").to_owned()
    }

    /// The file of the authority of its certificate.
    pub(crate) fn authority(&self) -> &str {
        self.0.told("MACHINA_TEST_POSTGRES_CA")
    }

    /// `kill`, `stop`, `start`, `pause` or `resume`.
    pub(crate) fn order(&mut self, order: &str) {
        self.0.order(order);
    }
}

/// The password in an address.
pub(crate) fn password(url: &str) -> &str {
    url.split_once("://").unwrap().1.split_once(':').unwrap().1.split_once('@').unwrap().0
}

/// Forwards to a server, and cuts the connection that is in use once the server
/// has sent so many bytes more.
#[derive(Debug)]
pub(crate) struct Way {
    port: u16,
    left: Arc<AtomicUsize>,
    tasks: Tasks,
}

/// What the server says, and what arrives in its place: as long.
type Lie = (String, String);

impl Way {
    pub(crate) async fn to(url: &str) -> Self {
        Self::with(url, None).await
    }

    /// One on which the server seems to say something else.
    pub(crate) async fn lying(url: &str, truth: &str, lie: &str) -> Self {
        assert_eq!(truth.len(), lie.len(), "messages tell their length");
        Self::with(url, Some((truth.to_owned(), lie.to_owned()))).await
    }

    async fn with(url: &str, lie: Option<Lie>) -> Self {
        let target = url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (left, tasks) = (Arc::new(AtomicUsize::new(usize::MAX)), Tasks::new());
        let (forwarded, budget, lie) = (tasks.clone(), Arc::clone(&left), Arc::new(lie));
        drop(tasks.spawn("listen", async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                drop(forwarded.spawn("forward", forward(client, server, Arc::clone(&budget), Arc::clone(&lie))));
            }
        }));
        Self { port, left, tasks }
    }

    /// The address of the server on this way, in the clear so that bytes are those of the protocol.
    pub(crate) fn url(&self, url: &str) -> String {
        let (before, after) = url.split_once('@').unwrap();
        let (_, database) = after.split_once('/').unwrap();
        format!("{before}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Cuts after so many bytes from the server; connections made after that are whole.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    /// Whether it has cut.
    pub(crate) fn has_cut(&self) -> bool {
        self.left.load(Ordering::SeqCst) == usize::MAX
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn forward(client: TcpStream, server: TcpStream, left: Arc<AtomicUsize>, lie: Arc<Option<Lie>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { drop(tokio::io::copy(&mut from_client, &mut to_server).await) };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if let Some(lie) = &*lie {
                tell(lie, &mut buffer[..read]);
            }
            let allowed = left.load(Ordering::SeqCst);
            if read >= allowed {
                drop(to_client.write_all(&buffer[..allowed]).await);
                left.store(usize::MAX, Ordering::SeqCst);
                return;
            }
            if allowed != usize::MAX {
                left.store(allowed - read, Ordering::SeqCst);
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = up => {} () = down => {} }
}

fn tell((truth, lie): &Lie, said: &mut [u8]) {
    let places: Vec<usize> =
        said.windows(truth.len()).enumerate().filter(|(_, text)| *text == truth.as_bytes()).map(|(at, _)| at).collect();
    for at in places {
        said[at..at + lie.len()].copy_from_slice(lie.as_bytes());
    }
}
