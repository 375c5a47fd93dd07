//! nginx as a plain reverse proxy, where it is installed: what carrying a request
//! costs that nobody looks into.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running nginx; killed when dropped.
pub(crate) struct Nginx {
    child: Child,
    _home: TempDir,
    pub(crate) address: SocketAddr,
}

impl Nginx {
    /// nginx before `upstream`; `None` where there is none.
    pub(crate) fn start(upstream: SocketAddr) -> Option<Self> {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free");
        let place = home.path().display();
        let configuration = format!(
            "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;
             events {{ worker_connections 1024; }}
             http {{ access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
               fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
               keepalive_requests 100000000;
               upstream it {{ server {upstream}; keepalive 128; keepalive_requests 100000000; }}
               server {{ listen {address}; location / {{
                 proxy_pass http://it; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host localhost; }} }} }}"
        );
        let file = home.path().join("nginx.conf");
        std::fs::write(&file, configuration).expect("the configuration can be written");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(home.path()).arg("-c").arg(&file).stderr(Stdio::null());
        let child = command.spawn().ok()?;
        let nginx = Self { child, _home: home, address };
        let up = (0..100).any(|_| {
            #[allow(clippy::disallowed_methods, reason = "nothing else runs here")]
            std::thread::sleep(std::time::Duration::from_millis(20));
            TcpStream::connect(address).is_ok()
        });
        up.then_some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends when it does.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
