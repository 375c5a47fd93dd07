//! Ports of this machine: some where nobody listens, and some that had another listener.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, sleep};

/// A port that refuses connections while this is held. One that was given back could
/// be given to somebody else, who answers.
pub(crate) fn closed() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

/// Listens at `address`. A connection that goes out may have a port for a moment that
/// another listener has left.
pub(crate) async fn listen(address: &str) -> TcpListener {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                sleep(Duration::from_millis(50)).await;
            }
            listener => return listener.unwrap(),
        }
    }
}
