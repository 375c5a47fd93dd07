//! What a probe looks at besides MCP itself.

use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{Error, Result};

/// What a probe looks at besides MCP: `/path` on the origin of the instance, an
/// `http://` or `https://` address, or `tcp://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, examples("/healthz", "tcp://db.example:5432")))]
#[serde(try_from = "String", into = "String")]
pub struct HealthEndpoint(String);

impl HealthEndpoint {
    const MAX: usize = 2048;

    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for anything else than the three forms.
    pub fn parse(text: &str) -> Result<Self> {
        let rest = |scheme: &str| text.strip_prefix(scheme).filter(|rest| !rest.is_empty() && !rest.starts_with('/'));
        let tcp = |rest: &str| {
            let port = rest.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            matches!(port, Some(Ok(port)) if port > 0)
        };
        let path = text.starts_with('/') && !text.starts_with("//");
        let known = path || rest("http://").is_some() || rest("https://").is_some() || rest("tcp://").is_some_and(tcp);
        let plain = !text.chars().any(|c| c.is_control() || c.is_whitespace()) && text.len() <= Self::MAX;
        let endpoint = Self(text.to_owned());
        if known && plain && (path || endpoint.address().is_some()) {
            return Ok(endpoint);
        }
        Err(Error::invalid("a health endpoint is `/path`, an http:// or https:// address, or `tcp://host:port`"))
    }

    /// Where it is, unless that is on the origin of the instance; for
    /// `tcp://host:port` that is `http://host:port`, so that its host is read in
    /// the same way.
    #[must_use]
    pub fn address(&self) -> Option<Url> {
        let address = match self.0.strip_prefix("tcp://") {
            Some(place) => Url::parse(&format!("http://{place}")).ok().filter(|url| url.path() == "/"),
            None => Url::parse(&self.0).ok(),
        };
        address.filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none())
    }

    /// Whether a port that takes connections is all that is looked for.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.0.starts_with("tcp://")
    }

    /// As it was declared.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HealthEndpoint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<HealthEndpoint> for String {
    fn from(endpoint: HealthEndpoint) -> Self {
        endpoint.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_as_connections_are_opened() {
        let address = |text: &str| HealthEndpoint::parse(text).unwrap().address().map(String::from);
        assert_eq!(address("/health"), None);
        assert_eq!(address("tcp://0x7f.1:5432").as_deref(), Some("http://127.0.0.1:5432/"));
        assert_eq!(address("https://2130706433/x").as_deref(), Some("https://127.0.0.1/x"));
    }

    #[test]
    fn three_forms_and_no_other() {
        for good in ["/", "/health?deep=1", "https://a.example/x", "http://a", "tcp://a.example:80", "tcp://[::1]:5432"]
        {
            assert_eq!(HealthEndpoint::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "health",
            "//a.example/x",
            "ftp://a",
            "tcp://a",
            "tcp://a:0",
            "tcp://:80",
            "http:///x",
            "/a b",
            "http://[::g]/",
            "http://u:p@a/",
            "tcp://a/b:80",
            "tcp://u@a:80",
        ] {
            assert!(HealthEndpoint::parse(bad).unwrap_err().message().contains("tcp://host:port"), "{bad}");
        }
    }
}
