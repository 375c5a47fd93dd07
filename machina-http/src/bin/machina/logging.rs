//! The log: on stderr, so that stdout is the answer (or the protocol) alone.

use machina_core::{Error, Result};
use tracing_subscriber::EnvFilter;

use crate::screen::Screen;

/// What is shown when nobody says otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loudness {
    /// Warnings: a command's answer speaks for itself.
    Quiet,
    /// What happens, too: for a server that runs for long.
    Talkative,
}

impl Loudness {
    fn filter(self) -> &'static str {
        match self {
            Self::Quiet => "warn",
            Self::Talkative => "info,rmcp=warn",
        }
    }
}

/// Starts the log. `filter` is that of the user, such as `debug` or
/// `warn,machina_mcp=trace`.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) when `filter` cannot be read.
pub(crate) fn start(filter: Option<&str>, loudness: Loudness, json: bool, screen: &Screen) -> Result<()> {
    let filter = EnvFilter::try_new(filter.unwrap_or(loudness.filter())).map_err(|error| {
        Error::invalid_field("--log", format!("is no filter such as `debug` or `warn,machina_mcp=trace`: {error}"))
    })?;
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(screen.clone()).with_ansi(screen.is_coloured());
    if json {
        log.json().init()
    } else {
        log.init()
    }
    Ok(())
}
