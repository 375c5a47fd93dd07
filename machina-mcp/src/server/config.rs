//! Limits and habits of the HTTP endpoint: plain data with sensible defaults.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use machina_core::{Error, Problem, Result};
use serde::{Deserialize, Serialize};

use super::exposure::{Exposure, ToolMode, ToolPrefix};

/// How hosts are served over Streamable HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServerConfig {
    /// Which tools a host sees.
    pub mode: ToolMode,
    /// How they are named in flat mode.
    pub prefix: ToolPrefix,
    /// Whether the names of earlier gateways are listed too.
    pub aliases: bool,
    /// The names under which this server may be asked: a `Host` header with
    /// another one is refused, so that no foreign web page reaches a server on
    /// its reader's own machine. Each is a host (any port) or `host:port`, IPv6
    /// in brackets; `*` allows all.
    pub allowed_hosts: Vec<String>,
    /// Web pages that may ask, as origins such as `https://app.example`, beside
    /// those of this server itself. A request without `Origin` comes from no page.
    pub allowed_origins: Vec<String>,
    /// The longest message from a host, in bytes.
    pub message_bytes_max: usize,
    /// How long a host may take to send its message.
    #[serde(with = "duration")]
    pub message_timeout: Duration,
    /// How many calls run at a time, of all hosts together.
    pub requests_max: usize,
    /// How many sessions of the older era are remembered; the one that was idle
    /// longest makes way.
    pub sessions_max: usize,
    /// How long an idle session of the older era is remembered.
    #[serde(with = "duration")]
    pub session_idle: Duration,
    /// How many streams that tell of changes are open at a time, of all hosts
    /// together: those of sessions, and subscriptions.
    pub streams_max: usize,
    /// How many WebSockets are open at a time.
    pub sockets_max: usize,
    /// How long a call may run before its answer becomes a stream of events,
    /// which a long one needs so that nobody on the way gives it up.
    #[serde(with = "duration")]
    pub stream_after: Duration,
    /// How often a silent stream of events shows a sign of life, and a WebSocket
    /// asks for one; a WebSocket that gives none for three times as long is closed.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
}

impl Default for HttpServerConfig {
    fn default() -> Self {
        Self {
            mode: ToolMode::default(),
            prefix: ToolPrefix::default(),
            aliases: true,
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec(),
            allowed_origins: Vec::new(),
            message_bytes_max: 4 * 1024 * 1024,
            message_timeout: Duration::from_secs(30),
            requests_max: 1024,
            sessions_max: 1024,
            session_idle: Duration::from_secs(30 * 60),
            streams_max: 512,
            sockets_max: 256,
            stream_after: Duration::from_secs(1),
            keep_alive: Duration::from_secs(15),
        }
    }
}

impl HttpServerConfig {
    /// How upstream tools appear to a host.
    #[must_use]
    pub fn exposure(&self) -> Exposure {
        Exposure { mode: self.mode, prefix: self.prefix, aliases: self.aliases }
    }

    /// Checks that every value lies in its range.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) with every wrong field at once.
    pub fn validate(&self) -> Result<()> {
        let (tenth, second) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut problems = Vec::new();
        let mut wrong = |field: &str, detail: String| problems.push(Problem { field: field.to_owned(), detail });
        for (index, origin) in self.allowed_origins.iter().enumerate() {
            if !is_origin(origin) {
                let detail = "must be an origin such as https://app.example, without path".to_owned();
                wrong(&format!("allowed_origins[{index}]"), detail);
            }
        }
        let counts = [
            ("message_bytes_max", self.message_bytes_max, 1024, 64 * 1024 * 1024),
            ("requests_max", self.requests_max, 1, 100_000),
            ("sessions_max", self.sessions_max, 1, 100_000),
            ("streams_max", self.streams_max, 1, 100_000),
            ("sockets_max", self.sockets_max, 1, 100_000),
        ];
        for (field, value, least, most) in counts {
            if !(least..=most).contains(&value) {
                wrong(field, format!("must be {least} to {most}, is {value}"));
            }
        }
        let durations = [
            ("message_timeout", self.message_timeout, tenth, 600 * second),
            ("session_idle", self.session_idle, second, 86_400 * second),
            ("stream_after", self.stream_after, tenth, 60 * second),
            ("keep_alive", self.keep_alive, second, 600 * second),
        ];
        for (field, value, least, most) in durations {
            if !(least..=most).contains(&value) {
                wrong(field, format!("must be {least:?} to {most:?}, is {value:?}"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }
}

/// Whether `text` is what browsers send as `Origin`: scheme, host and port.
fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && rest.parse::<http::uri::Authority>().is_ok_and(|authority| authority.as_str() == rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_named() {
        HttpServerConfig::default().validate().unwrap();
        let origins = ["https://app.example", "http://localhost:3000", "https://app.example/", "app.example"];
        let config = HttpServerConfig {
            allowed_hosts: Vec::new(),
            allowed_origins: origins.map(str::to_owned).to_vec(),
            message_bytes_max: 0,
            message_timeout: Duration::ZERO,
            requests_max: 0,
            sessions_max: 0,
            session_idle: Duration::ZERO,
            streams_max: 0,
            sockets_max: 0,
            stream_after: Duration::ZERO,
            keep_alive: Duration::from_millis(999),
            ..HttpServerConfig::default()
        };
        let error = config.validate().unwrap_err();
        let mut fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
        fields.sort_unstable();
        let mut wanted = [
            "allowed_origins[2]",
            "allowed_origins[3]",
            "keep_alive",
            "message_bytes_max",
            "message_timeout",
            "requests_max",
            "session_idle",
            "sessions_max",
            "sockets_max",
            "stream_after",
            "streams_max",
        ];
        wanted.sort_unstable();
        assert_eq!(fields, wanted);
    }

    #[test]
    fn reads_back_what_it_writes_and_names_unknown_fields() {
        let text = serde_json::to_string(&HttpServerConfig::default()).unwrap();
        assert!(text.contains(r#""keep_alive":"15s""#), "{text}");
        assert_eq!(serde_json::from_str::<HttpServerConfig>(&text).unwrap(), HttpServerConfig::default());
        let error = serde_json::from_str::<HttpServerConfig>(r#"{"cors": true}"#).unwrap_err();
        assert!(error.to_string().contains("cors"), "{error}");
    }
}
