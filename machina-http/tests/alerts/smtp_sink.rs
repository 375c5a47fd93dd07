//! A mail server that keeps what it is sent, and refuses what it is told to.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use mailin_embedded::response::{AUTH_OK, INTERNAL_ERROR, INVALID_CREDENTIALS, NO_MAILBOX, OK};
use mailin_embedded::{AuthMechanism, Handler, Response, Server, SslConfig};

use crate::certificates::Certificate;

/// A mail, as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) text: String,
    /// Who said that they send it, and that was so.
    pub(crate) user: Option<String>,
}

#[derive(Clone)]
pub(crate) struct SmtpSink {
    pub(crate) address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
}

/// What the server does in one connection.
#[derive(Clone)]
struct Talk {
    mails: Arc<Mutex<Vec<Mail>>>,
    password: Option<&'static str>,
    mail: Mail,
}

impl SmtpSink {
    /// A server with STARTTLS if there is a certificate, and that only `machina`
    /// may use if there is a password. It lives as long as the process of the test.
    pub(crate) fn new(certificate: Option<&Certificate>, password: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, mails) = (listener.local_addr().unwrap(), Arc::default());
        let mut server = Server::new(Talk { mails: Arc::clone(&mails), password, mail: Mail::default() });
        let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
        let tls = certificate.map_or(SslConfig::None, |certificate| SslConfig::SelfSigned {
            cert_path: path(certificate.certificate()),
            key_path: path(certificate.key()),
        });
        server.with_name("localhost").with_ssl(tls).unwrap().with_tcp_listener(listener);
        server.with_num_threads(2);
        if password.is_some() {
            server.with_auth(AuthMechanism::Plain);
        }
        std::thread::spawn(move || server.serve().unwrap());
        Self { address, mails }
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }
}

impl Handler for Talk {
    fn mail(&mut self, _: std::net::IpAddr, _: &str, from: &str) -> Response {
        let user = self.mail.user.take();
        self.mail = Mail { from: from.to_owned(), user, ..Mail::default() };
        OK
    }

    fn rcpt(&mut self, to: &str) -> Response {
        match to.split('@').next() {
            Some("nobody") => return NO_MAILBOX,
            Some("later") => return INTERNAL_ERROR,
            _ => self.mail.to.push(to.to_owned()),
        }
        OK
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.mail.text += &String::from_utf8_lossy(bytes);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        self.mails.lock().unwrap().push(self.mail.clone());
        OK
    }

    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> Response {
        if (user, Some(password)) != ("machina", self.password) {
            return INVALID_CREDENTIALS;
        }
        self.mail.user = Some(user.to_owned());
        AUTH_OK
    }
}
