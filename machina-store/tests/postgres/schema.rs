//! A schema of its own for each test, in the database that the environment names.

use machina_core::Backend;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row as _};

/// The address of the server that tests may use.
const URL: &str = "MACHINA_TEST_POSTGRES_URL";

/// The address of the server.
pub(crate) fn server() -> String {
    let Some(url) = std::env::var_os(URL) else {
        panic!("{URL} is not set: run the tests by `tests/backing/run.py -- cargo test …`, which starts a PostgreSQL");
    };
    url.into_string().unwrap()
}

/// A schema that is dropped with this.
#[derive(Debug)]
pub(crate) struct Schema {
    name: String,
}

impl Schema {
    pub(crate) fn new() -> Self {
        Self { name: format!("t{}", machina_core::InstanceId::generate().as_uuid().simple()) }
    }

    /// The address of the store in it.
    pub(crate) fn url(&self) -> String {
        self.at(&server())
    }

    /// The same, on the way of another address of the server.
    pub(crate) fn at(&self, server: &str) -> String {
        let separator = if server.contains('?') { '&' } else { '?' };
        format!("{server}{separator}schema={}", self.name)
    }

    /// A connection that finds its tables.
    pub(crate) async fn connection(&self) -> PgConnection {
        let options: PgConnectOptions = server().parse().unwrap();
        options.options([("search_path", &self.name)]).connect().await.unwrap()
    }

    /// The first row of `sql` as text, columns joined by `|`.
    pub(crate) async fn row(&self, sql: &str) -> String {
        let mut connection = self.connection().await;
        let text = format!(
            "SELECT concat_ws('|', VARIADIC ARRAY(SELECT coalesce(value, '') FROM json_each_text(to_json(x)))) \
                            FROM ({sql}) AS x LIMIT 1"
        );
        let row = sqlx::query(AssertSqlSafe(text)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        row.get(0)
    }

    /// Makes it, where no store does.
    pub(crate) async fn create(&self) {
        self.run(&format!("CREATE SCHEMA {}", self.name)).await;
    }

    /// Opens a store in it.
    pub(crate) async fn open(&self) -> Backend {
        machina_store::open(&self.url()).await.unwrap()
    }

    /// Runs statements one by one on another server.
    pub(crate) async fn run_at(url: &str, statements: &[&str]) {
        let options: PgConnectOptions = url.parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        for sql in statements {
            sqlx::raw_sql(AssertSqlSafe((*sql).to_owned())).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    }

    /// Runs statements from outside the store.
    pub(crate) async fn run(&self, sql: &str) {
        let mut connection = self.connection().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let name = self.name.clone();
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let options: PgConnectOptions = server().parse().unwrap();
                let mut connection = options.connect().await.unwrap();
                // Who still has a transaction open would keep it for ever.
                let drop = format!("SET lock_timeout = '10s'; DROP SCHEMA IF EXISTS {name} CASCADE");
                let dropped = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await;
                if let Err(error) = dropped {
                    eprintln!("the schema {name} stays: {error}");
                }
            });
        });
        drop(dropped.join());
    }
}
