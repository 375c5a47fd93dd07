//! Limits and habits of the connectors: plain data with sensible defaults.

use std::time::Duration;

use machina_core::{Error, Problem, Result};
use serde::{Deserialize, Serialize};

use super::shepherd_program::ShepherdProgram;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;

/// How child processes are started, limited and stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StdioConfig {
    /// Variables that a child inherits; `LC_*` means every name with that prefix.
    pub inherit_env: Vec<String>,
    /// Variables that change what code a child runs (such as `LD_*`, `NODE_OPTIONS`,
    /// `PYTHON*`, `BASH_ENV`) and may be declared nevertheless.
    pub allow_env: Vec<String>,
    /// The longest message from or to a child, in bytes.
    pub message_bytes_max: usize,
    /// How much of stderr is kept, in bytes.
    pub stderr_bytes_max: usize,
    /// How many bytes may wait to be written to a child; at least one message.
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
    /// How many files a child may have open; never more than Machina itself.
    pub open_files_max: usize,
    /// Whether a child that crashes may leave its memory, secrets included, in a file.
    pub core_dumps: bool,
    /// Whether only its own user may read the files that a child makes (umask 077);
    /// if not, they are as those that Machina makes.
    pub private_files: bool,
    /// Whether a child can never gain privileges (Linux): with it `sudo` and other
    /// programs that change their user do not work.
    pub no_new_privs: bool,
    /// Which program ends the children when this process is killed.
    pub shepherd: ShepherdProgram,
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
            open_files_max: 4_096,
            core_dumps: false,
            private_files: true,
            no_new_privs: true,
            shepherd: ShepherdProgram::Auto,
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
    /// How often the other end of a silent connection is asked for a sign of life
    /// (a TCP keep-alive). When two in a row are missing the connection is over, and
    /// an instance that was listened to over it is probed at once.
    #[serde(with = "duration")]
    pub keepalive_interval: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            discover_timeout: Duration::from_secs(5),
            message_bytes_max: 4 * 1024 * 1024,
            idle_connections_max: 16,
            idle_timeout: Duration::from_secs(4),
            keepalive_interval: Duration::from_secs(5),
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

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

impl ClientConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`machina_core::ErrorKind::Invalid`] with every wrong field, by its dotted
    /// path such as `stdio.write_timeout`, and what would be right.
    pub fn validate(&self) -> Result<()> {
        let Self { stdio, http } = self;
        let (ms, minute) = (Duration::from_millis(1), Duration::from_secs(60));
        let mut problems = Vec::new();
        for (field, value, least, most) in [
            ("stdio.message_bytes_max", stdio.message_bytes_max, KIB, GIB),
            ("stdio.stderr_bytes_max", stdio.stderr_bytes_max, KIB, 64 * MIB),
            ("stdio.queue_bytes_max", stdio.queue_bytes_max, KIB, 2 * GIB),
            ("stdio.starts_max", stdio.starts_max, 1, 256),
            ("stdio.open_files_max", stdio.open_files_max, 64, MIB),
            ("http.message_bytes_max", http.message_bytes_max, KIB, GIB),
            ("http.idle_connections_max", http.idle_connections_max, 0, 10_000),
        ] {
            between(field, value, least, most, &mut problems);
        }
        for (field, value, least, most) in [
            ("stdio.write_timeout", stdio.write_timeout, ms, 10 * minute),
            ("stdio.discover_timeout", stdio.discover_timeout, ms, 10 * minute),
            ("stdio.stop_after_eof", stdio.stop_after_eof, Duration::ZERO, minute),
            ("stdio.stop_after_term", stdio.stop_after_term, Duration::ZERO, minute),
            ("http.connect_timeout", http.connect_timeout, ms, minute),
            ("http.discover_timeout", http.discover_timeout, ms, 10 * minute),
            ("http.idle_timeout", http.idle_timeout, ms, 60 * minute),
            ("http.keepalive_interval", http.keepalive_interval, Duration::from_secs(1), 60 * minute),
        ] {
            between(field, value, least, most, &mut problems);
        }
        if stdio.queue_bytes_max < stdio.message_bytes_max {
            let least = stdio.message_bytes_max;
            let detail = format!("must be at least `stdio.message_bytes_max` ({least}), is {}", stdio.queue_bytes_max);
            problems.push(Problem { field: "stdio.queue_bytes_max".into(), detail });
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }
}

fn between<T: PartialOrd + std::fmt::Debug>(field: &str, value: T, least: T, most: T, problems: &mut Vec<Problem>) {
    if value < least || value > most {
        let detail = format!("must be between {least:?} and {most:?}, is {value:?}");
        problems.push(Problem { field: field.to_owned(), detail });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_out_of_range_is_named() {
        ClientConfig::default().validate().unwrap();
        let (mut small, mut large) = (ClientConfig::default(), ClientConfig::default());
        for (config, size, time) in [(&mut small, 0, Duration::ZERO), (&mut large, usize::MAX, Duration::MAX)] {
            let StdioConfig {
                message_bytes_max, stderr_bytes_max, queue_bytes_max, starts_max, open_files_max, ..
            } = &mut config.stdio;
            let sizes = [message_bytes_max, stderr_bytes_max, queue_bytes_max, starts_max, open_files_max];
            sizes.into_iter().for_each(|field| *field = size);
            let StdioConfig { write_timeout, discover_timeout, stop_after_eof, stop_after_term, .. } =
                &mut config.stdio;
            let times = [write_timeout, discover_timeout, stop_after_eof, stop_after_term];
            times.into_iter().for_each(|field| *field = time);
            config.http = HttpConfig {
                connect_timeout: time,
                discover_timeout: time,
                message_bytes_max: size,
                idle_connections_max: size,
                idle_timeout: time,
                keepalive_interval: time,
            };
        }
        let fields = |config: ClientConfig| {
            let error = config.validate().unwrap_err();
            error.context().problems.iter().map(|problem| problem.field.clone()).collect::<Vec<_>>()
        };
        let may_be_zero = ["http.idle_connections_max", "stdio.stop_after_eof", "stdio.stop_after_term"];
        let (small, large) = (fields(small), fields(large));
        assert_eq!(large.len(), 15, "{large:?}");
        let wanted: Vec<_> = large.into_iter().filter(|field| !may_be_zero.contains(&field.as_str())).collect();
        assert_eq!(small, wanted);
    }

    #[test]
    fn a_queue_must_hold_a_message() {
        let mut config = ClientConfig::default();
        config.stdio.queue_bytes_max = config.stdio.message_bytes_max;
        config.validate().unwrap();
        config.stdio.queue_bytes_max -= 1;
        let error = config.validate().unwrap_err();
        assert_eq!(error.context().problems[0].field, "stdio.queue_bytes_max");
        let environment = crate::client::Environment::default();
        assert_eq!(
            crate::client::connectors(config, environment).unwrap_err().kind(),
            machina_core::ErrorKind::Invalid
        );
    }

    #[test]
    fn reads_back_what_it_writes_and_names_unknown_fields() {
        let text = serde_json::to_string(&ClientConfig::default()).unwrap();
        assert!(text.contains(r#""connect_timeout":"2s""#), "{text}");
        assert_eq!(serde_json::from_str::<ClientConfig>(&text).unwrap(), ClientConfig::default());
        let error = serde_json::from_str::<ClientConfig>(r#"{"stdio": {"shell": true}}"#).unwrap_err();
        assert!(error.to_string().contains("shell"), "{error}");
    }
}
