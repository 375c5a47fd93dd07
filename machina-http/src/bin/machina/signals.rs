//! How the process is asked to end: once for an orderly end, twice for one at once.

use std::io;

use machina_core::{Error, Result, Tasks};
use tokio::sync::watch;

/// Hears SIGINT, SIGTERM and SIGHUP (Ctrl-C where there are none of these).
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    count: watch::Receiver<u32>,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`Internal`](machina_core::ErrorKind::Internal) when the system refuses.
    pub(crate) fn listen(tasks: &Tasks) -> Result<Self> {
        let (heard, count) = watch::channel(0);
        let mut listener =
            Listener::new().map_err(|error| Error::internal("signals cannot be heard").caused_by(error))?;
        tasks.spawn("hear signals", async move {
            loop {
                listener.next().await;
                heard.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { count })
    }

    async fn reached(&self, least: u32) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count >= least).await.is_err() {
            // The listener is gone, so no signal will ever come.
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the first.
    pub(crate) async fn first(&self) {
        self.reached(1).await;
    }

    /// Waits for the second.
    pub(crate) async fn second(&self) {
        self.reached(2).await;
    }
}

#[cfg(unix)]
struct Listener([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Listener {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Listener;

#[cfg(not(unix))]
impl Listener {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
