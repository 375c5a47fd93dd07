//! The answer to one HTTP request, as JSON or as a stream of events, and the
//! messages that come along with it.

use std::sync::Arc;
use std::time::Duration;

use machina_core::{Carried, Error, Phase, Result};
use serde_json::Value;
use tokio::time::sleep;

use super::http_link::{Peer, is_empty_success};
use super::http_response::Received;
use super::link::{Aside, Dialect, OnAside, rejected, unanswered};
use super::sse::{Event, Parser};
use super::status::media_type;
use super::wire::{self, Incoming, RpcError};

/// How often a stream that ended early is taken up again.
const RESUMES_MAX: u32 = 5;
/// The pause before that, unless the server names one, and the longest that it may name.
const RESUME_PAUSE: Duration = Duration::from_secs(1);
const RESUME_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest reply to a request of a server: its id is the server's choice.
const REPLY_BYTES_MAX: usize = 1_024;

/// Reads the answer to the request `id`.
pub(super) struct Answers<'a> {
    pub(super) peer: &'a Arc<Peer>,
    pub(super) dialect: &'a Dialect,
    pub(super) id: u64,
    pub(super) method: &'a str,
    pub(super) carried: &'a Carried,
}

/// Where a stream can be taken up again.
#[derive(Default)]
struct Position {
    last_id: Option<String>,
    retry: Option<Duration>,
}

impl Answers<'_> {
    /// The result that `response` carries.
    pub(super) async fn answer(&self, response: Received, on_aside: OnAside<'_>) -> Result<Value> {
        if response.is_stream() {
            return self.of_stream(response, on_aside).await;
        }
        let (status, kind) = (response.status(), response.content_type().to_owned());
        if kind.starts_with("application/json") && !is_empty_success(status) {
            let body = self.body(response).await?;
            let answer = Incoming::parse(&body).into_iter().find_map(|message| self.take(message, on_aside));
            return answer.unwrap_or_else(|| Err(self.without_answer("its body is no answer")));
        }
        let kind = media_type(&kind).unwrap_or("unknown");
        let what = format!("HTTP {} of the type {kind} carries no answer", status.as_u16());
        Err(Error::rejected(format!("{}: {what}", self.method)).at(Phase::MaybeExecuted))
    }

    /// Handles the messages of a listening stream until it ends.
    pub(super) async fn listen(&self, response: Received, last_id: &mut Option<String>) {
        let mut position = Position { last_id: last_id.take(), retry: None };
        let _ = self.stream(response, &mut position, &mut |_| {}).await;
        *last_id = position.last_id;
    }

    async fn body(&self, mut response: Received) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.peer.not_received(error))? {
            if body.len() + chunk.len() > self.peer.message_bytes_max {
                return Err(self.too_long());
            }
            self.carried.receive(chunk.len());
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn of_stream(&self, mut response: Received, on_aside: OnAside<'_>) -> Result<Value> {
        let mut position = Position::default();
        for _ in 0..=RESUMES_MAX {
            let broken = match self.stream(response, &mut position, on_aside).await {
                Ok(Some(answer)) => return answer,
                Ok(None) => self.without_answer("its stream ended"),
                Err(error) => error,
            };
            // Taking a stream up again repeats nothing: the server only goes on telling.
            let Some(last_id) = position.last_id.clone() else { return Err(broken) };
            sleep(position.retry.unwrap_or(RESUME_PAUSE).min(RESUME_PAUSE_MAX)).await;
            match self.peer.get(self.dialect, Some(&last_id)).send().await {
                Ok(resumed) if resumed.status().is_success() => response = resumed.into(),
                _ => return Err(broken),
            }
        }
        Err(self.without_answer("its stream ended too often"))
    }

    /// Handles the messages of a stream until the answer comes or the stream ends.
    async fn stream(
        &self,
        mut response: Received,
        position: &mut Position,
        on_aside: OnAside<'_>,
    ) -> Result<Option<Result<Value>>> {
        let mut parser = Parser::new(self.peer.message_bytes_max);
        let mut events = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.peer.not_received(error))? {
            self.carried.receive(chunk.len());
            let well_formed = parser.push(&chunk, &mut events);
            for Event { data, id, retry_ms } in events.drain(..) {
                position.last_id = id.or(position.last_id.take());
                position.retry = retry_ms.map(Duration::from_millis).or(position.retry);
                for message in Incoming::parse(data.unwrap_or_default().as_bytes()) {
                    if let Some(answer) = self.take(message, on_aside) {
                        return Ok(Some(answer));
                    }
                }
            }
            well_formed.map_err(|_| self.too_long())?;
        }
        Ok(None)
    }

    /// Handles one message; the answer to our request is handed on.
    fn take(&self, message: Incoming, on_aside: OnAside<'_>) -> Option<Result<Value>> {
        match message {
            Incoming::Response { id, outcome } if id.is_none_or(|id| id == self.id) => {
                return Some(outcome.map_err(|error| self.rejected(&error)));
            }
            Incoming::Response { .. } => {}
            Incoming::Request { id, method } => {
                let reply = wire::reply(&id, &method);
                if reply.len() <= REPLY_BYTES_MAX {
                    self.peer.aside(reply, self.dialect);
                }
            }
            Incoming::Notification { method, params } if method == "notifications/progress" => {
                let token = &params["progressToken"];
                if token.as_u64().or_else(|| token.as_str()?.parse().ok()) == Some(self.id) {
                    on_aside(Aside::Progress(params));
                }
            }
            Incoming::Notification { method, params } if method == wire::LOG_MESSAGE => on_aside(Aside::Log(params)),
            Incoming::Notification { method, .. } if wire::is_change(&method) => self.peer.events.change(),
            Incoming::Notification { .. } => {}
        }
        None
    }

    fn rejected(&self, error: &RpcError) -> Error {
        rejected(self.method, error, self.dialect.era, &self.peer.secrets)
    }

    fn without_answer(&self, why: &str) -> Error {
        unanswered(format!("{} was not answered: {why}", self.method), Phase::MaybeExecuted)
    }

    fn too_long(&self) -> Error {
        let limit = self.peer.message_bytes_max;
        Error::rejected(format!("the answer to {} is malformed or has more than {limit} bytes", self.method))
            .at(Phase::Answered)
    }
}
