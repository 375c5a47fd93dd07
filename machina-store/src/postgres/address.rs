//! The address of a PostgreSQL database: what Machina takes of it, and the rest
//! for the driver. No error repeats any of it, and nothing of it can be shown: it
//! may hold a password.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use machina_core::{Error, Result};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use url::Url;

/// The parameters that go to the driver as they are.
const FOR_DRIVER: [&str; 9] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "user", "password", "application_name"];

/// Those of them that name files.
const FILES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];

/// All parameters, for people.
const PARAMETERS: &str = "sslmode, sslrootcert, sslcert, sslkey, host, port, user, password, application_name, schema, \
                          connections_max, connect_timeout, statement_timeout and lock_timeout";

/// What is said to whoever names a server and its standbys.
const ONE_SERVER: &str = "names several servers, and must name one: give an address that leads to whichever takes \
                          changes now, such as a virtual address, a DNS name that is moved, or a pooler before them";

/// How long a transaction may keep others waiting whose process is stopped or cut
/// off, in milliseconds: less than they wait for it.
const IDLE_IN_TRANSACTION_MS: u32 = 4_000;

/// A database, and how it is used.
#[derive(Clone)]
pub(crate) struct PostgresAddress {
    pub(super) options: PgConnectOptions,
    /// The schema that the tables are in; the first of the server's own search path when `None`.
    pub(super) schema: Option<String>,
    pub(super) connections_max: u32,
    pub(super) connect_timeout: Duration,
    pub(super) statement_timeout: Duration,
    /// The parameters that name files, with what they name.
    files: Vec<(String, String)>,
}

/// Shows where it is, and nothing of who comes in how.
impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresAddress").field("place", &self.place()).field("schema", &self.schema).finish()
    }
}

/// The same place.
impl PartialEq for PostgresAddress {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place() && self.schema == other.schema
    }
}

impl Eq for PostgresAddress {}

impl PostgresAddress {
    /// Reads `url`, of which it is known that it begins with `postgres:` or `postgresql:`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        if names_several(url) {
            return Err(wrong(ONE_SERVER));
        }
        let mut url = Url::parse(url).map_err(|error| wrong(&format!("is not an address: {error}")))?;
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        url.set_query(None);
        if url.fragment().is_some() {
            return Err(wrong("takes no `#`; in a password it is written `%23`"));
        }
        let mut own = Own::default();
        for (name, value) in &pairs {
            if matches!(name.as_str(), "host" | "port") && value.contains(',') || name == "target_session_attrs" {
                return Err(wrong(ONE_SERVER));
            }
            if FOR_DRIVER.contains(&name.as_str()) {
                url.query_pairs_mut().append_pair(name, value);
            } else {
                own.set(name, value)?;
            }
        }
        // What the driver says of a parameter repeats its value.
        let options = PgConnectOptions::from_str(url.as_str())
            .map_err(|_| wrong("has a parameter that cannot be: see `sslmode` and `port`"))?;
        let files = pairs.into_iter().filter(|(name, _)| FILES.contains(&name.as_str())).collect();
        Ok(own.with(options, files))
    }

    /// The files that it names are there; the driver would not say which is not.
    pub(super) fn check_files(&self) -> Result<()> {
        self.files.iter().try_for_each(|(parameter, path)| {
            let opened = std::fs::File::open(path).map(drop);
            opened.map_err(|error| wrong(&format!("`{parameter}`: `{path}` cannot be read: {error}")))
        })
    }

    /// The server and the database, for messages.
    pub(super) fn place(&self) -> String {
        let host = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        };
        format!("{host}/{}", self.options.get_database().unwrap_or_else(|| self.options.get_username()))
    }
}

/// Machina's own parameters.
struct Own {
    schema: Option<String>,
    connections_max: u32,
    connect_timeout: Duration,
    statement_timeout: Duration,
    lock_timeout: Duration,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            schema: None,
            connections_max: 8,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
        }
    }
}

impl Own {
    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "schema" => self.schema = Some(schema(value)?),
            "connections_max" => {
                let number = value.parse().ok().filter(|number| (2..=100).contains(number));
                self.connections_max = number.ok_or_else(|| wrong("`connections_max` must be 2 to 100"))?;
            }
            "connect_timeout" => self.connect_timeout = seconds(name, value)?,
            "statement_timeout" => self.statement_timeout = seconds(name, value)?,
            "lock_timeout" => self.lock_timeout = seconds(name, value)?,
            _ => {
                let name = name.escape_debug();
                return Err(wrong(&format!("has no parameter `{name}`; there are {PARAMETERS}")));
            }
        }
        Ok(())
    }

    fn with(self, options: PgConnectOptions, files: Vec<(String, String)>) -> PostgresAddress {
        let mut settings = vec![
            ("statement_timeout", self.statement_timeout.as_millis().to_string()),
            ("lock_timeout", self.lock_timeout.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MS.to_string()),
        ];
        if let Some(schema) = &self.schema {
            settings.push(("search_path", schema.clone()));
        }
        let mut options = options.options(settings).disable_statement_logging();
        if options.get_application_name().is_none() {
            options = options.application_name("machina");
        }
        PostgresAddress {
            options,
            schema: self.schema,
            connections_max: self.connections_max,
            connect_timeout: self.connect_timeout,
            statement_timeout: self.statement_timeout,
            files,
        }
    }
}

/// A name that needs no quotes.
fn schema(value: &str) -> Result<String> {
    let fits = (1..=63).contains(&value.len())
        && value.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !value.starts_with("pg_");
    if fits {
        Ok(value.to_owned())
    } else {
        Err(wrong("`schema` must be 1 to 63 of a-z, 0-9 and _, and begin with a letter"))
    }
}

/// Whether there is more than one server between the user and the database.
fn names_several(url: &str) -> bool {
    let authority =
        url.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().is_some_and(|servers| servers.contains(','))
}

/// Seconds, with or without the letter.
fn seconds(name: &str, value: &str) -> Result<Duration> {
    let number = value.strip_suffix('s').unwrap_or(value).parse().ok().filter(|number| (1..=3600).contains(number));
    let number: u64 = number.ok_or_else(|| wrong(&format!("`{name}` must be 1 to 3600 seconds, such as `10s`")))?;
    Ok(Duration::from_secs(number))
}

fn wrong(detail: &str) -> Error {
    Error::invalid_field("store", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<PostgresAddress> {
        PostgresAddress::parse(&format!("postgres://alice:hunter2@db.example/machina{rest}"))
    }

    #[test]
    fn parameters_are_taken() {
        let address =
            parse("?schema=m_1&connections_max=3&connect_timeout=7&statement_timeout=20s&sslmode=verify-full").unwrap();
        assert_eq!(address.schema.as_deref(), Some("m_1"));
        assert_eq!((address.connections_max, address.connect_timeout.as_secs()), (3, 7));
        assert_eq!(address.statement_timeout.as_secs(), 20);
        assert_eq!(address.place(), "db.example:5432/machina");
        let options = address.options.get_options().unwrap();
        for setting in ["statement_timeout=20000", "lock_timeout=5000", "search_path=m_1", "session_timeout=4000"] {
            assert!(options.contains(setting), "{options}");
        }
        assert!(matches!(address.options.get_ssl_mode(), sqlx::postgres::PgSslMode::VerifyFull));
    }

    #[test]
    fn wrong_addresses_say_what_would_be_right_and_no_password() {
        for (rest, says) in [
            ("?colour=blue", "no parameter `colour`"),
            ("?schema=A-b", "`schema` must be"),
            ("?schema=pg_x", "`schema` must be"),
            ("?connections_max=1", "2 to 100"),
            ("?connect_timeout=0", "1 to 3600 seconds"),
            ("?statement_timeout=1m", "1 to 3600 seconds"),
            ("?sslmode=maybe-hunter2", "`sslmode`"),
            ("#hunter2", "`%23`"),
        ] {
            let error = parse(rest).unwrap_err();
            assert_eq!(error.context().problems[0].field, "store");
            assert!(error.message().contains(says) && !format!("{error:?}").contains("hunter2"), "{rest}: {error:?}");
        }
        assert!(!format!("{:?}", parse("").unwrap()).contains("hunter2"));
        for several in [
            "postgres://alice:hunter2@db1,db2/machina?target_session_attrs=read-write",
            "postgres://alice:hunter2@db1:5432,db2:5433/machina",
            "postgres://alice:hunter2@db/machina?host=db1,db2",
            "postgres://alice:hunter2@db1/machina?target_session_attrs=read-write",
        ] {
            let error = PostgresAddress::parse(several).unwrap_err();
            assert!(error.message().contains("names several servers, and must name one"), "{several}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(PostgresAddress::parse("postgres://alice:a,b@db/machina").is_ok(), "a comma in a password");
        let error = PostgresAddress::parse("postgres://alice:hunter2@db:port/x").unwrap_err();
        assert!(error.message().contains("invalid port") && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
