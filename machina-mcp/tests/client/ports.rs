//! Ports on which nobody listens, and which nobody else gets meanwhile: a port that was merely let go may be that of
//! another test a moment later.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

/// A port that refuses connections for as long as the socket lives.
pub(crate) async fn closed() -> (TcpSocket, SocketAddr) {
    let socket = hold("127.0.0.1:0".parse().unwrap()).await;
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Takes `address` as soon as it is let go; connections are refused until the socket listens.
pub(crate) async fn hold(address: SocketAddr) -> TcpSocket {
    let taken = async {
        loop {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            match socket.bind(address) {
                Ok(()) => return socket,
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    };
    timeout(Duration::from_secs(10), taken).await.expect("the port is let go")
}
