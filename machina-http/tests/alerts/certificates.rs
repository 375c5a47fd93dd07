//! A certificate for `localhost` that nobody but the test trusts, and TLS in
//! front of a server that has none.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use machina_core::Tasks;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

pub(crate) struct Certificate {
    directory: TempDir,
    made: CertifiedKey<rcgen::KeyPair>,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self { directory, made }
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// TLS in front of the server at `to`; returns its port.
    pub(crate) async fn before(&self, to: SocketAddr, tasks: &Tasks) -> u16 {
        let key = PrivateKeyDer::try_from(self.made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![self.made.cert.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tasks.spawn("terminate TLS", async move {
            while let Ok((connection, _)) = listener.accept().await {
                // A client that does not trust the certificate leaves here.
                let Ok(mut outside) = acceptor.accept(connection).await else { continue };
                let mut inside = TcpStream::connect(to).await.unwrap();
                // How a connection ends is of no interest.
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
        port
    }
}
