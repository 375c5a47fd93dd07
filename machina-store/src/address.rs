//! Which store an address means. It never repeats an address in an error: the
//! address of another kind of database may hold a password.

use std::path::{Path, PathBuf};

use machina_core::{Error, Result};

#[cfg(feature = "postgres")]
use crate::postgres::PostgresAddress;

/// What an address may be, for messages.
const ADDRESSES: &str = "`memory:`, `sqlite:PATH` or `postgres://…`";

/// What that of a store that lasts may be.
const LASTING: &str = "`sqlite:PATH` or `postgres://…`";

/// What a bare path to a database ends in.
const EXTENSIONS: [&str; 3] = ["db", "sqlite", "sqlite3"];

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Memory,
    Sqlite(PathBuf),
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresAddress>),
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        match url.split_once(':') {
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("memory", _)) => Err(wrong("must be `memory:` and nothing else")),
            _ if is_in_memory(url) => Err(wrong("must be `memory:` for a store in memory")),
            _ => lasting(url, ADDRESSES),
        }
    }

    /// Reads an address of which it is known that it [is not in memory](is_in_memory).
    pub(crate) fn parse_lasting(url: &str) -> Result<Self> {
        lasting(url, LASTING)
    }
}

/// Whether it is the address of a store in memory, or is meant to be.
pub(crate) fn is_in_memory(url: &str) -> bool {
    url.starts_with("memory:") || matches!(url, "sqlite::memory:" | "sqlite://:memory:")
}

/// Reads an address that may be what `may_be` says.
fn lasting(url: &str, may_be: &str) -> Result<Address> {
    match url.split_once(':') {
        Some(("sqlite", rest)) => sqlite(rest.strip_prefix("//").unwrap_or(rest)),
        Some(("postgres" | "postgresql", _)) => postgres(url),
        Some((scheme, _)) if is_scheme(scheme) => {
            Err(wrong(&format!("must be {may_be}, and `{scheme}:` is none of these")))
        }
        _ if has_extension(url) => sqlite(url),
        _ => Err(wrong(&format!("must be {may_be}"))),
    }
}

#[cfg(feature = "postgres")]
fn postgres(url: &str) -> Result<Address> {
    PostgresAddress::parse(url).map(|address| Address::Postgres(Box::new(address)))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &str) -> Result<Address> {
    Err(Error::unsupported("store: this build cannot use PostgreSQL: it was made without the feature `postgres`"))
}

fn sqlite(path: &str) -> Result<Address> {
    if path.is_empty() {
        return Err(wrong("must name a file, as in `sqlite:machina.db`"));
    }
    if path.contains(['?', '#', '\0']) {
        return Err(wrong("takes no parameters after the path of the file"));
    }
    if path.starts_with('~') {
        return Err(wrong("must have the path in full: `~` is only understood by shells"));
    }
    Ok(Address::Sqlite(PathBuf::from(path)))
}

/// Longer than one letter, which would be a drive of Windows.
fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn has_extension(path: &str) -> bool {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn wrong(detail: &str) -> Error {
    Error::invalid_field("store", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use machina_core::ErrorKind;

    #[test]
    fn addresses() {
        assert_eq!(Address::parse("memory:").unwrap(), Address::Memory);
        for (url, path) in [
            ("sqlite:machina.db", "machina.db"),
            ("sqlite:/var/lib/machina", "/var/lib/machina"),
            ("sqlite://machina.db", "machina.db"),
            ("sqlite:///var/lib/m.db", "/var/lib/m.db"),
            ("./a b/machina.db", "./a b/machina.db"),
            ("C:/machina.sqlite3", "C:/machina.sqlite3"),
        ] {
            assert_eq!(Address::parse(url).unwrap(), Address::Sqlite(path.into()), "{url}");
        }
    }

    #[test]
    fn other_addresses_say_what_would_be_right() {
        for (url, says) in [
            ("", ADDRESSES),
            ("machina", ADDRESSES),
            ("memory", ADDRESSES),
            ("memory:x", "nothing else"),
            ("mysql://u:hunter2@h/x.db", "`mysql:` is none of these"),
            ("sqlite:", "must name a file"),
            ("sqlite://", "must name a file"),
            ("sqlite::memory:", "must be `memory:`"),
            ("sqlite:x.db?mode=rwc", "no parameters"),
            ("sqlite:~/x.db", "path in full"),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert_eq!(error.context().problems[0].field, "store");
            assert!(error.message().contains(says) && !error.message().contains("hunter2"), "{url}: {error}");
        }
    }
}
