//! The way from one replica to PostgreSQL. It can be cut, so that nothing gets
//! through and nobody says so, and it can lose notifications.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use machina_core::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The type of a message that announces something.
const NOTIFICATION: u8 = b'A';

/// A wire.
#[derive(Debug)]
pub(super) struct Wire {
    port: u16,
    state: Arc<State>,
    _tasks: Tasks,
}

#[derive(Debug, Default)]
struct State {
    cut: AtomicBool,
    /// Of a hundred notifications so many are lost.
    loses: AtomicU32,
    seen: AtomicU64,
    lost: AtomicU64,
}

impl State {
    /// Waits as long as nothing gets through.
    async fn pass(&self) {
        while self.cut.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn loses(&self, kind: u8) -> bool {
        if kind != NOTIFICATION {
            return false;
        }
        // Spread evenly, and in no step with anything: 61 has no divisor in common with 100.
        let nth = self.seen.fetch_add(1, Ordering::Relaxed);
        let loses = nth * 61 % 100 < u64::from(self.loses.load(Ordering::Relaxed));
        self.lost.fetch_add(u64::from(loses), Ordering::Relaxed);
        loses
    }
}

impl Wire {
    /// A wire to this port of 127.0.0.1.
    pub(super) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let (state, tasks) = (Arc::new(State::default()), Tasks::new());
        let (shared, group) = (Arc::clone(&state), tasks.clone());
        tasks.spawn("wire", async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                group.spawn("connection", async move {
                    state.pass().await;
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                        // Otherwise the wire would add its own waits to every answer.
                        drop((client.set_nodelay(true), server.set_nodelay(true)));
                        let ((from_client, to_client), (from_server, to_server)) =
                            (client.into_split(), server.into_split());
                        tokio::select! {
                            () = copy(from_client, to_server, &state) => {}
                            () = copy_messages(from_server, to_client, &state) => {}
                        }
                    }
                });
            }
        });
        Self { port, state, _tasks: tasks }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Relaxed);
    }

    /// Loses so many of a hundred notifications from now on.
    pub(super) fn lose(&self, of_a_hundred: u32) {
        self.state.seen.store(0, Ordering::Relaxed);
        self.state.lost.store(0, Ordering::Relaxed);
        self.state.loses.store(of_a_hundred, Ordering::Relaxed);
    }

    /// How many notifications came since then, and how many of them were lost.
    pub(super) fn notifications(&self) -> (u64, u64) {
        (self.state.seen.load(Ordering::Relaxed), self.state.lost.load(Ordering::Relaxed))
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, state: &State) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        state.pass().await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Copies what the server says message by message: a type and a length, then the rest.
async fn copy_messages(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, state: &State) {
    loop {
        let mut head = [0; 5];
        if from.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut message = head.to_vec();
        message.resize(1 + length.max(4), 0);
        if from.read_exact(&mut message[5..]).await.is_err() {
            return;
        }
        state.pass().await;
        if state.loses(head[0]) {
            continue;
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}
