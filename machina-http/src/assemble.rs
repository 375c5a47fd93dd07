//! Puts a whole Machina together: a store by its address, everything that reaches
//! servers, the channels of alerts. For programs that embed it: the binary and the
//! bindings. Nothing else in this crate knows of the other crates, and this file
//! holds no rule of the registry: it picks parts and hands them to
//! [`Builder`].
//!
//! One address means one thing wherever it is written. That of a store is opened in
//! this process. `http://` and `https://` are a Machina that runs elsewhere, and is
//! asked. With `follow+` before them, that Machina is *followed*: its store becomes
//! that of a Machina in this process, which looks up, routes and probes by itself.

mod embedded;
mod json;
mod question;

use std::collections::BTreeMap;
use std::sync::Arc;

use machina_core::{Backend, Builder, Config, Error, Machina, Registry, Result, Router, Sensitive};
use machina_mcp::client::{ClientConfig, Environment, connectors};
use machina_store::Redis;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::embedded::{Embedded, Seen, closed, event, panicked};
pub use self::json::{read, written};
pub use self::question::{Call, Question};
use crate::{Client, RemoteStore, notifiers, notifiers_if_possible};

/// What a Machina is put together from, besides its store.
#[derive(Debug, Clone)]
pub struct AssembleOptions {
    /// The configuration of the core.
    pub config: Config,
    /// How servers are reached. Where `stdio.shepherd` is `auto` there is none:
    /// only the binary is its own, and says so before it comes here.
    pub client: ClientConfig,
    /// What placeholders such as `${env:TOKEN}` refer to, and what child processes
    /// inherit from.
    pub environment: Environment,
    /// A Redis that replicas share beside their store: see [`Redis::open`].
    pub redis: Option<Sensitive>,
    /// Whether instances are started, probed and told of. Without, they are left
    /// alone until they are called, and a channel of alerts that cannot be set up
    /// is no error.
    pub watch: bool,
}

impl AssembleOptions {
    /// The defaults, with these environment variables.
    #[must_use]
    pub fn new(variables: BTreeMap<String, String>) -> Self {
        Self {
            config: Config::default(),
            client: ClientConfig::default(),
            environment: Environment::new(variables),
            redis: None,
            watch: true,
        }
    }

    /// The defaults, with the environment variables of this process as they are now.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::new(process_variables())
    }

    /// What a program of another language says in JSON:
    /// `{"config": {…}, "environment": {…}, "monitor": true}`, of which only `monitor`
    /// must be there. In the configuration, `stdio` and `http` are the connectors',
    /// `store.redis` is [`AssembleOptions::redis`], and the rest is the core's. The
    /// environment is that of this process where it is not said.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field.
    pub fn read(options: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Said {
            #[serde(default)]
            config: Map<String, Value>,
            environment: Option<BTreeMap<String, String>>,
            monitor: bool,
        }
        let Said { mut config, environment, monitor } = read(options)?;
        let redis = config.shift_remove("store").map_or(Ok(None), redis_of)?;
        let parts = ["stdio", "http"].map(|part| Some((part.to_owned(), config.shift_remove(part)?)));
        let client = json::typed(Value::Object(parts.into_iter().flatten().collect()))?;
        let environment = Environment::new(environment.unwrap_or_else(process_variables));
        Ok(Self { config: json::typed(Value::Object(config))?, client, environment, redis, watch: monitor })
    }
}

/// The Redis of the section `store`; its address may hold a password, and is in no error.
fn redis_of(store: Value) -> Result<Option<Sensitive>> {
    let wrong = |field: &str, detail: &str| Err(Error::invalid_field(field, detail));
    let Value::Object(mut store) = store else {
        return wrong("store", "must be such as `{\"redis\": \"redis://HOST\"}`");
    };
    let redis = store.shift_remove("redis");
    if let Some(other) = store.keys().next() {
        let detail = "is no option here: there is `redis`, and the address of the store is said where it is opened";
        return wrong(&format!("store.{other}"), detail);
    }
    match redis {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(url)) => match Redis::check_address(&url) {
            Ok(()) => Ok(Some(Sensitive::secret(url))),
            Err(error) => wrong("store.redis", error.context().problems.first().map_or("", |problem| &problem.detail)),
        },
        Some(_) => wrong("store.redis", "must be a string"),
    }
}

/// The environment variables of this process; those that are not UTF-8 are left out.
#[must_use]
pub fn process_variables() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// A Machina that was opened by an address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Opened {
    /// It is part of this process.
    Here(Machina),
    /// It runs elsewhere, and every question is one request to it.
    There(Client),
}

impl Opened {
    /// It, as a registry.
    #[must_use]
    pub fn registry(&self) -> Arc<dyn Registry> {
        match self {
            Self::Here(machina) => Arc::new(machina.clone()),
            Self::There(client) => Arc::new(client.clone()),
        }
    }

    /// It, as a router of calls.
    #[must_use]
    pub fn router(&self) -> Arc<dyn Router> {
        match self {
            Self::Here(machina) => Arc::new(machina.clone()),
            Self::There(client) => Arc::new(client.clone()),
        }
    }

    /// It, where it is part of this process.
    #[must_use]
    pub fn here(&self) -> Option<&Machina> {
        match self {
            Self::Here(machina) => Some(machina),
            Self::There(_) => None,
        }
    }

    /// Ends what runs in this process: sessions, child processes, the store. Later
    /// calls fail. One that runs elsewhere goes on, and is only no longer asked.
    pub async fn close(&self) {
        if let Self::Here(machina) = self {
            machina.close().await;
        }
    }
}

/// Opens the Machina at `url`: for `http://` and `https://` one that runs elsewhere,
/// and otherwise one in this process, on the store at `url` as [`backend`] takes it.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) for an address that is neither, and
/// options out of range; those of [`Client::check_version`] for one that runs
/// elsewhere, and whatever the store says for one in this process.
///
/// # Panics
/// When called outside a tokio runtime.
pub async fn open(url: &str, options: AssembleOptions) -> Result<Opened> {
    if is_elsewhere(url) {
        let client = Client::new(url)?;
        client.check_version().await?;
        return Ok(Opened::There(client));
    }
    Ok(Opened::Here(builder(url, options).await?.open().await?))
}

/// Everything of a Machina in this process on the store at `url`, for a program that
/// adds something of its own before it opens it.
///
/// # Errors
/// As [`open`].
pub async fn builder(url: &str, options: AssembleOptions) -> Result<Builder> {
    let AssembleOptions { config, client, environment, redis, watch } = options;
    config.validate()?;
    redis.as_ref().map_or(Ok(()), |url| Redis::check_address(url.expose()))?;
    let resolve = |field: &str, text: &str| environment.resolve(field, text);
    let notifiers =
        if watch { notifiers(&config.alerts, &resolve)? } else { notifiers_if_possible(&config.alerts, &resolve) };
    let connectors = connectors(client, environment)?;
    let mut backend = backend(url).await?;
    if let Some(url) = &redis {
        backend = Redis::open(url.expose()).await?.attach(backend);
    }
    let mut builder = Machina::builder().config(config).backend(backend).connectors(connectors);
    if followed(url).is_some() {
        builder = builder.following();
    }
    for notifier in notifiers {
        builder = builder.notifier(notifier);
    }
    Ok(if watch { builder } else { builder.without_monitor() })
}

/// Opens the store at `url`: the one place that knows every kind.
///
/// * `follow+https://…` and `follow+http://…`: that of a Machina elsewhere, which
///   serves it with `server.remote_stores`: see [`RemoteStore`].
/// * Everything else is for [`machina_store::open`]: `memory:`, `sqlite:PATH` and
///   those of databases.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) for what is no address of a store;
/// whatever the store says, and [`Client::check_version`].
pub async fn backend(url: &str) -> Result<Backend> {
    let Some(base) = followed(url) else {
        check_store_address(url)?;
        return machina_store::open(url).await;
    };
    let client = elsewhere(base)?;
    client.check_version().await?;
    Ok(RemoteStore::new(client).backend())
}

/// Checks that `url` is the address of a store, as [`backend`] takes it, without
/// opening anything.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) when it is none.
pub fn check_store_address(url: &str) -> Result<()> {
    match followed(url) {
        Some(base) => elsewhere(base).map(drop),
        None if is_elsewhere(url) => {
            let detail = "is the address of a Machina, and not of a store: put `follow+` before it to follow that one, \
                          or ask it with `--url`";
            Err(Error::invalid_field("store", detail))
        }
        None => machina_store::check_address(url),
    }
}

/// The Machina that `url` says is to be followed.
fn followed(url: &str) -> Option<&str> {
    url.strip_prefix("follow+")
}

fn elsewhere(base: &str) -> Result<Client> {
    Client::new(base).map_err(|error| {
        let detail = error.context().problems.first().map_or(error.message(), |problem| &problem.detail);
        Error::invalid_field("store", format!("{detail}, after `follow+`"))
    })
}

/// Whether `url` is the address of a Machina that runs elsewhere.
fn is_elsewhere(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
}

#[cfg(test)]
#[path = "../tests/support/ports.rs"]
mod ports;

#[cfg(test)]
mod tests {
    use machina_core::{ErrorKind, Query, ServiceSpec};

    use super::*;

    fn options() -> AssembleOptions {
        AssembleOptions::new(BTreeMap::new())
    }

    #[tokio::test]
    async fn a_store_is_opened_in_this_process() {
        let opened = open("memory:", options()).await.unwrap();
        opened.here().unwrap().register(ServiceSpec::new("a").unwrap()).await.unwrap();
        assert_eq!(opened.registry().find(&Query::default()).await.unwrap().items.len(), 1);
        assert!(opened.router().explain("a", None).await.is_ok());
        opened.close().await;
    }

    #[tokio::test]
    async fn one_elsewhere_is_asked_before_it_is_believed() {
        let closed = ports::closed();
        let url = format!("HTTP://{}", closed.local_addr().unwrap());
        assert_eq!(open(&url, options()).await.unwrap_err().kind(), ErrorKind::Unreachable);
        let error = open("https://", options()).await.unwrap_err();
        assert_eq!(error.context().problems[0].field, "url");
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_before_a_store_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("m.db");
        let url = format!("sqlite:{}", file.display());
        let mut wrong = options();
        wrong.config.journal.entries_max = 0;
        assert_eq!(open(&url, wrong).await.unwrap_err().context().problems[0].field, "journal.entries_max");
        let wrong = AssembleOptions { redis: Some(Sensitive::secret("http://a")), ..options() };
        assert_eq!(open(&url, wrong).await.unwrap_err().kind(), ErrorKind::Invalid);
        let mut wrong = options();
        wrong.client.stdio.starts_max = 0;
        assert_eq!(open(&url, wrong).await.unwrap_err().context().problems[0].field, "stdio.starts_max");
        assert!(!file.exists());
        assert_eq!(open("ftp://a", options()).await.unwrap_err().context().problems[0].field, "store");
    }

    #[tokio::test]
    async fn an_address_means_one_thing() {
        for good in ["memory:", "sqlite:m.db", "follow+https://machina.example", "follow+http://127.0.0.1:1/registry"] {
            check_store_address(good).unwrap();
        }
        for (wrong, says) in [
            ("https://machina.example", "follow+"),
            ("HTTP://machina.example", "follow+"),
            ("follow+ftp://a", "http://"),
            ("follow+https://u:hunter2@a", "credentials"),
            ("follow+sqlite:m.db", "http://"),
        ] {
            for error in [check_store_address(wrong).unwrap_err(), backend(wrong).await.unwrap_err()] {
                assert_eq!(error.context().problems[0].field, "store");
                assert!(error.message().contains(says) && !error.message().contains("hunter2"), "{wrong}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn it_is_opened_in_any_thread() {
        fn may_change_threads<T: Send>(opening: T) -> T {
            opening
        }
        may_change_threads(open("memory:", options())).await.unwrap().close().await;
    }

    #[test]
    fn options_are_said_in_json() {
        let said = |json: &str| AssembleOptions::read(json.as_bytes());
        let options = said(
            r#"{"monitor": false, "environment": {"A": "b"}, "config": {"limits": {"services_max": 7},
                "stdio": {"starts_max": 2}, "store": {"redis": "redis://:hunter2@h"}}}"#,
        );
        let options = options.unwrap();
        assert_eq!((options.config.limits.services_max, options.client.stdio.starts_max), (7, 2));
        assert_eq!(options.redis.as_ref().map(Sensitive::expose), Some("redis://:hunter2@h"));
        assert!(!options.watch && !format!("{options:?}").contains("hunter2"));
        assert_eq!(said(r#"{"monitor": true}"#).unwrap().redis, None);
        for (config, field) in [
            (r#"{"limits": {"services_max": "many"}}"#, "limits.services_max"),
            (r#"{"stdio": {"starts_max": "two"}}"#, "stdio.starts_max"),
            (r#"{"store": "redis://:hunter2@h"}"#, "store"),
            (r#"{"store": {"redis": "http://:hunter2@h"}}"#, "store.redis"),
            (r#"{"store": {"redis": ["redis://:hunter2@h"]}}"#, "store.redis"),
            (r#"{"store": {"url": "sqlite:hunter2.db"}}"#, "store.url"),
        ] {
            let error = said(&format!(r#"{{"monitor": true, "config": {config}}}"#)).unwrap_err();
            assert_eq!(error.context().problems[0].field, field);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn this_process_has_an_environment() {
        assert!(process_variables().contains_key("PATH"));
        assert!(AssembleOptions::of_this_process().watch);
    }
}
