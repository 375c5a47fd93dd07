//! Everything that can be set about the server, as plain data with defaults.

use std::time::Duration;

use machina_core::{Error, Problem, Result, Sensitive};
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
    /// What the header `x-cron-secret` of `POST /api/jobs/health-check` must hold, 16
    /// to 1024 characters; without it that job is refused.
    #[serde(deserialize_with = "secret")]
    pub job_secret: Option<Sensitive>,
    /// Origins, such as `https://app.example`, whose pages may use the API from a
    /// browser though they come from elsewhere (CORS). Without credentials.
    pub cors_allowed_origins: Vec<String>,
    /// Whether other Machinas may follow this one: read its store over the API,
    /// secrets in place, and commit to it.
    pub remote_stores: bool,
    /// How many connections there may be; further ones wait to be taken.
    pub connections_max: usize,
    /// How many bytes the request line and the headers may have together.
    pub header_bytes_max: usize,
    /// How long the head of a request may take to arrive.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub header_timeout: Duration,
    /// How long a connection may be idle between two requests, and how long its peer
    /// may take nothing of an answer.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub idle_timeout: Duration,
    /// How long a server that was told to stop still takes requests, while
    /// `/readyz` says that it will not.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub shutdown_delay: Duration,
}

/// Reads a secret; what is not text is refused without being shown.
fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Sensitive>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::String(text) => Ok(Some(Sensitive::secret(text))),
        _ => Err(serde::de::Error::custom("must be text, in quotes")),
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            body_max: 4 * 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            job_secret: None,
            cors_allowed_origins: Vec::new(),
            remote_stores: false,
            connections_max: 10_000,
            header_bytes_max: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            shutdown_delay: Duration::ZERO,
        }
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
        for (index, origin) in self.cors_allowed_origins.iter().enumerate() {
            if !is_origin(origin) {
                let detail = "must be an origin such as https://app.example, without a path";
                wrong(format!("cors_allowed_origins[{index}]"), detail);
            }
        }
        let sizes = [
            ("body_max", self.body_max, 1024..=64 * 1024 * 1024, "must be 1024 to 67108864"),
            ("connections_max", self.connections_max, 1..=1_000_000, "must be 1 to 1000000"),
            ("header_bytes_max", self.header_bytes_max, 1024..=256 * 1024, "must be 1024 to 262144"),
        ];
        for (field, value, range, detail) in sizes {
            if !range.contains(&value) {
                wrong(field.to_owned(), detail);
            }
        }
        let (tenth, ten_minutes) = (Duration::from_millis(100), Duration::from_secs(600));
        let times = [
            ("request_timeout", self.request_timeout, tenth..=ten_minutes, "must be 100ms to 10m"),
            ("header_timeout", self.header_timeout, tenth..=ten_minutes, "must be 100ms to 10m"),
            ("idle_timeout", self.idle_timeout, tenth..=ten_minutes * 6, "must be 100ms to 1h"),
            ("shutdown_delay", self.shutdown_delay, Duration::ZERO..=ten_minutes, "must be 0s to 10m"),
        ];
        for (field, value, range, detail) in times {
            if !range.contains(&value) {
                wrong(field.to_owned(), detail);
            }
        }
        if let Some(secret) = &self.job_secret {
            let length = secret.expose().chars().count();
            if !(16..=1024).contains(&length) {
                wrong("job_secret".to_owned(), "must have 16 to 1024 characters");
            } else if !secret.is_secret() {
                wrong("job_secret".to_owned(), "must be the secret itself, and is a placeholder");
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }
}

/// Whether `text` is an origin as browsers write it.
fn is_origin(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.origin().ascii_serialization() == text
    })
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
        let job_secret = Some(Sensitive::secret("short"));
        let origins = ["https://a.example", "http://localhost:3000", "a.example", "https://a.example/", "*", "null"];
        let config = ServerConfig {
            allowed_hosts: hosts,
            body_max: 1,
            request_timeout: Duration::ZERO,
            job_secret,
            cors_allowed_origins: origins.map(String::from).to_vec(),
            remote_stores: true,
            connections_max: 0,
            header_bytes_max: 1,
            header_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            shutdown_delay: Duration::from_secs(601),
        };
        let error = config.validate().unwrap_err();
        let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
        let hosts = ["allowed_hosts[2]", "allowed_hosts[3]", "allowed_hosts[4]"];
        let origins = (2..6).map(|index| format!("cors_allowed_origins[{index}]")).collect::<Vec<_>>();
        let origins: Vec<&str> = origins.iter().map(String::as_str).collect();
        let sizes = ["body_max", "connections_max", "header_bytes_max"];
        let times = ["request_timeout", "header_timeout", "idle_timeout", "shutdown_delay"];
        assert_eq!(fields, [&hosts[..], &origins, &sizes, &times, &["job_secret"]].concat());
    }

    #[test]
    fn a_secret_is_not_shown_and_is_no_placeholder() {
        let read = |json: serde_json::Value| serde_json::from_value::<ServerConfig>(json);
        let config = read(serde_json::json!({"job_secret": "correct horse battery"})).unwrap();
        config.validate().unwrap();
        let shown = format!("{config:?} {}", serde_json::to_value(&config).unwrap());
        assert!(!shown.contains("horse") && shown.contains(Sensitive::MASK), "{shown}");
        let refused = read(serde_json::json!({"job_secret": 123_456_789_012_345_678_u64})).unwrap_err().to_string();
        assert!(refused.contains("in quotes") && !refused.contains("1234"), "{refused}");
        let placeholder = ServerConfig { job_secret: Some(Sensitive::secret("${env:THE_JOB_SECRET}")), ..config };
        assert!(placeholder.validate().unwrap_err().message().contains("placeholder"));
    }
}
