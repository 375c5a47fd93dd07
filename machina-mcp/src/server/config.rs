//! Limits and habits of the HTTP endpoint: plain data with sensible defaults.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

/// How hosts are served over Streamable HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServerConfig {
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
    /// How long a call may run before its answer becomes a stream of events,
    /// which a long one needs so that nobody on the way gives it up.
    #[serde(with = "duration")]
    pub stream_after: Duration,
    /// How often a silent stream of events shows a sign of life.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
}

impl Default for HttpServerConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec(),
            allowed_origins: Vec::new(),
            message_bytes_max: 4 * 1024 * 1024,
            message_timeout: Duration::from_secs(30),
            requests_max: 1024,
            sessions_max: 1024,
            session_idle: Duration::from_secs(30 * 60),
            stream_after: Duration::from_secs(1),
            keep_alive: Duration::from_secs(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes_and_names_unknown_fields() {
        let text = serde_json::to_string(&HttpServerConfig::default()).unwrap();
        assert!(text.contains(r#""keep_alive":"15s""#), "{text}");
        assert_eq!(serde_json::from_str::<HttpServerConfig>(&text).unwrap(), HttpServerConfig::default());
        let error = serde_json::from_str::<HttpServerConfig>(r#"{"cors": true}"#).unwrap_err();
        assert!(error.to_string().contains("cors"), "{error}");
    }
}
