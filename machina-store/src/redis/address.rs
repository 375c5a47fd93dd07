//! Which Redis an address means. It is never repeated in an error or a log, because
//! it may hold a password: what is shown is the host, the port and the database.

use std::fmt;

use ::redis::io::tcp::TcpSettings;
use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};
use machina_core::{Error, Result};

/// The field that errors name.
const FIELD: &str = "redis";

/// The least that a person has to write.
const FORM: &str = "must be `redis://` or `rediss://`, then `[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`";

/// A Redis, and how to greet it.
pub(super) struct Address(ConnectionInfo);

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self> {
        if !["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(wrong(FORM));
        }
        if url.contains(['?', '#']) {
            return Err(wrong("takes no parameters; write `%3F` or `%23` for a `?` or `#` of the password"));
        }
        let info = url.into_connection_info().map_err(|_| wrong(FORM))?;
        if info.redis_settings().db() < 0 {
            return Err(wrong("must name a database of 0 or more"));
        }
        // Messages that nobody asked for come on the same connection as answers, and say when it ends.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let settings = settings.set_lib_name("machina", env!("CARGO_PKG_VERSION"));
        Ok(Self(info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true))))
    }

    pub(super) fn connection_info(&self) -> ConnectionInfo {
        self.0.clone()
    }

    /// The channel on which replicas wake each other: channels know no databases.
    pub(super) fn channel(&self) -> String {
        format!("machina:{}:changed", self.0.redis_settings().db())
    }
}

/// Without whom it is greeted as.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if matches!(self.0.addr(), ConnectionAddr::TcpTls { .. }) { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}/{}", self.0.addr(), self.0.redis_settings().db())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn wrong(detail: &str) -> Error {
    Error::invalid_field(FIELD, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_secret() {
        for (url, shown) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://h:7/3", "redis://h:7/3"),
            ("rediss://user:hunter2@h.example/1", "rediss://h.example:6379/1"),
            ("redis://:hunter2@[::1]:6", "redis://::1:6/0"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
        let channel = |url| Address::parse(url).unwrap().channel();
        assert_ne!(channel("redis://h/1"), channel("redis://h/2"));
    }

    #[test]
    fn other_addresses_say_what_would_be_right() {
        for (url, says) in [
            ("", "`redis://` or `rediss://`"),
            ("localhost:6379", "`redis://` or `rediss://`"),
            ("postgres://u:hunter2@h/x", "`redis://` or `rediss://`"),
            ("redis://", "HOST"),
            ("redis://u:hunter2@", "HOST"),
            ("redis://u:hunter2@h/x", "DATABASE"),
            ("redis://u:hunter2@h/-1", "0 or more"),
            ("redis://u:hunter2@h:99999", "PORT"),
            ("rediss://u:hunter2@h#insecure", "no parameters"),
            ("redis://u:hunter2@h?protocol=2", "no parameters"),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(
                (error.kind(), error.context().problems[0].field.as_str()),
                (machina_core::ErrorKind::Invalid, FIELD)
            );
            assert!(error.message().contains(says) && !format!("{error:?}").contains("hunter2"), "{url}: {error}");
        }
    }
}
