//! A port of this machine where nobody listens.

use tokio::net::TcpSocket;

/// It refuses connections while this is held. One that was given back could be given
/// to somebody else, who answers.
pub(crate) fn closed() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}
