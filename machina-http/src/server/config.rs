//! Everything that can be set about the server, as plain data with defaults.

use std::time::Duration;

use machina_core::{Error, Problem, Result};
use serde::{Deserialize, Serialize};

/// The configuration of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Names, besides `localhost` and loopback addresses, that the server may be
    /// addressed by and that pages which use it may come from. Without a port.
    pub allowed_hosts: Vec<String>,
    /// How many bytes the body of a request may have.
    pub body_max: usize,
    /// How long a request that is not a call may take, and how long the body of
    /// any request may take to arrive.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub request_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { allowed_hosts: Vec::new(), body_max: 4 * 1024 * 1024, request_timeout: Duration::from_secs(30) }
    }
}

impl ServerConfig {
    /// Checks that every value lies in its range.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) with every wrong field at once.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        let mut wrong = |field: String, detail: &str| problems.push(Problem { field, detail: detail.to_owned() });
        for (index, host) in self.allowed_hosts.iter().enumerate() {
            let bare = host.parse::<http::uri::Authority>().is_ok_and(|authority| authority.host() == host);
            if !bare {
                wrong(format!("allowed_hosts[{index}]"), "must be a host name or address without scheme and port");
            }
        }
        if !(1024..=64 * 1024 * 1024).contains(&self.body_max) {
            wrong("body_max".to_owned(), "must be 1024 to 67108864");
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(600)).contains(&self.request_timeout) {
            wrong("request_timeout".to_owned(), "must be 100ms to 10m");
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_read_back() {
        let config = ServerConfig::default();
        config.validate().unwrap();
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["request_timeout"], "30s");
        assert_eq!(serde_json::from_value::<ServerConfig>(json).unwrap(), config);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let hosts = ["machina.example", "[fd00::1]", "http://a", "a:80", ""].map(String::from).to_vec();
        let config = ServerConfig { allowed_hosts: hosts, body_max: 1, request_timeout: Duration::ZERO };
        let error = config.validate().unwrap_err();
        let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
        let hosts = ["allowed_hosts[2]", "allowed_hosts[3]", "allowed_hosts[4]"];
        assert_eq!(fields, [&hosts[..], &["body_max", "request_timeout"]].concat());
    }
}
