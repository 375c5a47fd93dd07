//! One connection: a request after another, each answered by the router. Refuses
//! to wait for a head that does not come, for a peer that says or takes nothing any
//! more, and, when the server stops, for anything but running requests.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use machina_core::quietly;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service as _;

use super::config::ServerConfig;
use super::listen::Stopping;
use super::socket::{Activity, AnswerBody, Awaited, Running, Socket};

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Door {
    router: Router,
    protocol: http1::Builder,
    header_timeout: Duration,
    idle_timeout: Duration,
    stopping: Stopping,
}

impl Door {
    pub(super) fn new(router: Router, config: &ServerConfig, stopping: Stopping) -> Self {
        let mut protocol = http1::Builder::new();
        // The time a head may take is kept here: hyper's clock runs between requests too.
        protocol.max_header_size(config.header_bytes_max).header_read_timeout(None);
        let ServerConfig { header_timeout, idle_timeout, .. } = *config;
        Self { router, protocol, header_timeout, idle_timeout, stopping }
    }

    /// Serves `stream` until either side has had enough.
    pub(super) async fn attend(self: Arc<Self>, stream: TcpStream, place: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let activity = Arc::new(Activity::default());
        let socket = TokioIo::new(Socket::new(stream, Arc::clone(&activity), place));
        let service = service_fn(|request| self.answer(request, &activity));
        let mut connection = pin!(self.protocol.serve_connection(socket, service).with_upgrades());
        let mut draining = pin!(self.stopping.draining());
        let mut patience = Patience::begin(self.header_timeout);
        let (mut listening, mut told) = (false, false);
        // The parts of a connection wake each other, and all of them are this task.
        quietly(poll_fn(|cx| {
            // Asked once, it wakes this task; to ask it every time would cost a lock.
            if !told && (!listening || self.stopping.is_draining()) {
                listening = true;
                told = draining.as_mut().poll(cx).is_ready();
                if told {
                    connection.as_mut().graceful_shutdown();
                }
            }
            if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
                if let Err(error) = outcome {
                    tracing::trace!(%error, "a connection broke off");
                }
                return Poll::Ready(());
            }
            let limit = match activity.awaited() {
                Awaited::Answer => return Poll::Pending,
                Awaited::Head | Awaited::Request if told => return Poll::Ready(()),
                Awaited::Head => self.header_timeout,
                Awaited::Request | Awaited::Taking => self.idle_timeout,
            };
            patience.poll_out(cx, (activity.awaited(), activity.progress()), limit)
        }))
        .await;
    }

    /// Has the router answer, and notes when the answer is over.
    fn answer(
        &self,
        request: Request<Incoming>,
        activity: &Arc<Activity>,
    ) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + Send + use<> {
        let running = Running::begin(activity);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.stopping.clone());
        let answered = self.router.clone().call(request);
        async move { Ok(answered.await?.map(|body| AnswerBody { body, _running: running })) }
    }
}

/// A clock that begins anew whenever something has happened.
#[derive(Debug)]
struct Patience {
    /// Never later than the end of patience; often earlier, for to set it costs more than to read it.
    timer: Pin<Box<Sleep>>,
    since: Instant,
    seen: (Awaited, u64),
}

impl Patience {
    fn begin(limit: Duration) -> Self {
        let since = Instant::now();
        Self { timer: Box::pin(sleep_until(since + limit)), since, seen: (Awaited::Head, 0) }
    }

    /// Resolves when nothing else has been seen for `limit`.
    fn poll_out(&mut self, cx: &mut Context<'_>, seen: (Awaited, u64), limit: Duration) -> Poll<()> {
        if self.seen != seen {
            (self.seen, self.since) = (seen, Instant::now());
        }
        let end = self.since + limit;
        if self.timer.deadline() > end {
            self.timer.as_mut().reset(end);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.timer.deadline() >= end {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(end);
        }
    }
}
