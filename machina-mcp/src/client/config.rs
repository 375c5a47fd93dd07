//! Limits and habits of the connectors: plain data with sensible defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;

/// How child processes are started, limited and stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StdioConfig {
    /// Variables that a child inherits; `LC_*` means every name with that prefix.
    pub inherit_env: Vec<String>,
    /// Variables that change what code a child runs (`LD_*`, `DYLD_*`,
    /// `NODE_OPTIONS`, `PYTHON*`, `BASH_ENV`) and may be declared nevertheless.
    pub allow_env: Vec<String>,
    /// The longest message from or to a child, in bytes.
    pub message_bytes_max: usize,
    /// How much of stderr is kept, in bytes.
    pub stderr_bytes_max: usize,
    /// How many bytes may wait to be written to a child.
    pub queue_bytes_max: usize,
    /// How long a child may leave a message unread before the session is given up.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// How long a child of unknown era may leave `server/discover` unanswered
    /// before it is offered the older handshake too.
    #[serde(with = "duration")]
    pub discover_timeout: Duration,
    /// How long a stopping child has from the end of its stdin to SIGTERM.
    #[serde(with = "duration")]
    pub stop_after_eof: Duration,
    /// How long it has from SIGTERM to SIGKILL.
    #[serde(with = "duration")]
    pub stop_after_term: Duration,
    /// How many children may be starting at a time; one that takes longer than
    /// 10 s no longer counts, so that it delays no other.
    pub starts_max: usize,
}

impl Default for StdioConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            inherit_env: names(&[
                "PATH",
                "HOME",
                "USER",
                "LOGNAME",
                "LANG",
                "LANGUAGE",
                "LC_*",
                "TZ",
                "TMPDIR",
                "XDG_*",
                // Where npx and uvx keep what they downloaded, and whom they trust.
                "NPM_CONFIG_CACHE",
                "npm_config_cache",
                "UV_CACHE_DIR",
                "UV_TOOL_DIR",
                "UV_PYTHON_INSTALL_DIR",
                "SSL_CERT_FILE",
                "SSL_CERT_DIR",
            ]),
            allow_env: names(&["PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE"]),
            message_bytes_max: 4 * 1024 * 1024,
            stderr_bytes_max: 64 * 1024,
            queue_bytes_max: 16 * 1024 * 1024,
            write_timeout: Duration::from_secs(10),
            discover_timeout: Duration::from_secs(10),
            stop_after_eof: Duration::from_secs(2),
            stop_after_term: Duration::from_secs(3),
            starts_max: 4,
        }
    }
}

/// How HTTP servers are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// How long it may take to resolve a name, connect and agree on TLS.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long a server of unknown era may leave `server/discover` unanswered
    /// before it is offered the older handshake.
    #[serde(with = "duration")]
    pub discover_timeout: Duration,
    /// The longest message from or to a server, in bytes.
    pub message_bytes_max: usize,
    /// How many idle connections are kept per host.
    pub idle_connections_max: usize,
    /// How long an idle connection is kept. Common servers close theirs after
    /// 5 s; a request that crosses with that has an unknown outcome.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            discover_timeout: Duration::from_secs(5),
            message_bytes_max: 4 * 1024 * 1024,
            idle_connections_max: 16,
            idle_timeout: Duration::from_secs(4),
        }
    }
}

/// The configuration of all connectors of this crate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Child processes.
    pub stdio: StdioConfig,
    /// Streamable HTTP.
    pub http: HttpConfig,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes_and_names_unknown_fields() {
        let text = serde_json::to_string(&ClientConfig::default()).unwrap();
        assert!(text.contains(r#""connect_timeout":"2s""#), "{text}");
        assert_eq!(serde_json::from_str::<ClientConfig>(&text).unwrap(), ClientConfig::default());
        let error = serde_json::from_str::<ClientConfig>(r#"{"stdio": {"shell": true}}"#).unwrap_err();
        assert!(error.to_string().contains("shell"), "{error}");
    }
}
