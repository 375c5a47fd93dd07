//! Settings of the registry API: plain data with sensible defaults.

use machina_core::{Error, Problem, Result};
use serde::{Deserialize, Serialize};

/// The origin that stands for every web page.
const ANY: &str = "*";

/// How the services appear to those who browse the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// What stands before the names of services that have no namespace.
    pub namespace: String,
    /// Web pages that may read the registry, as origins such as
    /// `https://app.example`; `*` for all of them.
    pub allowed_origins: Vec<String>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { namespace: "local.machina".to_owned(), allowed_origins: vec![ANY.to_owned()] }
    }
}

impl RegistryConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) with every wrong field at once.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        let mut wrong = |field: String, detail: &str| problems.push(Problem { field, detail: detail.to_owned() });
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if !(1..=90).contains(&self.namespace.len()) || !self.namespace.chars().all(fits) {
            let detail = "must be 1 to 90 of a-z A-Z 0-9 . -, best a domain of yours backwards: com.example";
            wrong("namespace".to_owned(), detail);
        }
        for (index, origin) in self.allowed_origins.iter().enumerate() {
            if origin != ANY && !origin.split_once("://").is_some_and(|(_, host)| is_host(host)) {
                let detail = "must be `*`, or an origin such as https://app.example, without path";
                wrong(format!("allowed_origins[{index}]"), detail);
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }

    /// What `Access-Control-Allow-Origin` says to a page from `origin`; `None` if
    /// it may not read.
    pub(super) fn admits<'a>(&self, origin: &'a str) -> Option<&'a str> {
        if self.allowed_origins.iter().any(|allowed| allowed == ANY) {
            return Some(ANY);
        }
        self.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)).then_some(origin)
    }
}

fn is_host(text: &str) -> bool {
    text.parse::<http::uri::Authority>().is_ok_and(|authority| authority.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_named() {
        RegistryConfig::default().validate().unwrap();
        let origins = ["*", "https://a.example", "http://localhost:3000", "https://a.example/", "a.example"];
        for namespace in ["", "a/b", "a_b", "ä", &"a".repeat(91)] {
            let allowed_origins = origins.map(str::to_owned).to_vec();
            let config = RegistryConfig { namespace: namespace.to_owned(), allowed_origins };
            let error = config.validate().unwrap_err();
            let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
            assert_eq!(fields, ["namespace", "allowed_origins[3]", "allowed_origins[4]"], "{namespace}");
        }
    }

    #[test]
    fn origins_are_admitted_one_by_one_or_all() {
        assert_eq!(RegistryConfig::default().admits("https://x.example"), Some("*"));
        let allowed_origins = vec!["https://a.example".to_owned()];
        let config = RegistryConfig { allowed_origins, ..RegistryConfig::default() };
        assert_eq!(config.admits("https://A.example"), Some("https://A.example"));
        assert_eq!(config.admits("https://b.example"), None);
        assert!(serde_json::from_str::<RegistryConfig>(r#"{"cors": true}"#).is_err());
    }
}
