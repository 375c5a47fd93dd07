//! The schema of the database, in numbered steps. All that are missing are made
//! in one transaction, under a lock that is held for nothing else, so any number
//! of processes may start at once. It refuses a schema that is newer than it
//! knows, and one with tables of another program in it.

use machina_core::{Error, Result};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::address::PostgresAddress;
use super::error::database_error;
use super::statement::{fetch_all, get};
use crate::migrations;

/// Every migration, in order; the version is the number in the file's name.
const MIGRATIONS: [(i64, &str, &str); 4] = [
    (1, "initial", include_str!("../../migrations/postgres/0001_initial.sql")),
    (2, "journal and replies", include_str!("../../migrations/postgres/0002_journal_and_replies.sql")),
    (3, "journal key", include_str!("../../migrations/postgres/0003_journal_key.sql")),
    (4, "attempts", include_str!("../../migrations/postgres/0004_attempts.sql")),
];

/// The table of what was done.
const TABLE: &str = "machina_migrations";

const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('machina schema'), hashtext($1))";

/// Tables of ours: where one is without [`TABLE`], it is another's.
const OTHERS: &str = "\
    SELECT c.relname::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE n.nspname = current_schema() AND to_regclass('machina_migrations') IS NULL AND c.relname IN ('meta', \
        'services', 'secrets', 'instances', 'tools', 'definitions', 'changes', 'calls', 'audit', 'health_checks', \
        'replica', 'replies', 'alerts') LIMIT 1";

/// Brings the schema up to date. One that is gets nothing written, so that a
/// standby serves those who only read.
pub(super) async fn migrate(connection: &mut PgConnection, address: &PostgresAddress) -> Result<()> {
    let migrator = migrator();
    if is_current(connection, &migrator).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await.map_err(database_error)?;
    for sql in ["SET LOCAL lock_timeout = '60s'", "SET LOCAL statement_timeout = 0"] {
        sqlx::query(sql).execute(&mut *transaction).await.map_err(database_error)?;
    }
    prepare(&mut transaction, address).await?;
    // Not `run`, whose bounds hide from the compiler that the future may change threads.
    let migrated = migrator.run_direct(None, &mut *transaction, false).await;
    migrations::settle(migrated, &address.place(), &MIGRATIONS, database_error)?;
    transaction.commit().await.map_err(database_error)
}

fn migrator() -> Migrator {
    let mut migrator = migrations::migrator(&MIGRATIONS);
    migrator.dangerous_set_table_name(TABLE);
    // The driver's own lock is of the whole database, and waits for ever.
    migrator.set_locking(false);
    migrator
}

/// Whether exactly these migrations were made.
async fn is_current(connection: &mut PgConnection, migrator: &Migrator) -> Result<bool> {
    if !is_made(connection).await? {
        return Ok(false);
    }
    let made = fetch_all(connection, "SELECT version, checksum FROM machina_migrations ORDER BY version").await?;
    let made = made.iter().map(|row| Ok((get::<i64>(row, "version")?, get::<Vec<u8>>(row, "checksum")?)));
    let made: Vec<_> = made.collect::<Result<_>>()?;
    Ok(migrator.iter().map(|one| (one.version, one.checksum.to_vec())).eq(made))
}

/// Whether there is any schema of ours.
pub(super) async fn is_made(connection: &mut PgConnection) -> Result<bool> {
    let found = fetch_all(connection, "SELECT to_regclass('machina_migrations') IS NOT NULL AS there").await?;
    found.first().map_or(Ok(false), |row| get(row, "there"))
}

/// Takes the lock, and makes the schema that the tables go into.
async fn prepare(connection: &mut PgConnection, address: &PostgresAddress) -> Result<()> {
    let unusable = |detail: &str| Error::invalid_field("store", format!("`{}` {detail}", address.place()));
    let lock = sqlx::query(LOCK).bind(address.schema.as_deref().unwrap_or_default());
    lock.execute(&mut *connection).await.map_err(database_error)?;
    let current = "SELECT current_schema() IS NOT NULL AS there";
    let there = |rows: Vec<_>| rows.first().map_or(Ok(false), |row| get(row, "there"));
    if !there(fetch_all(connection, current).await?)? {
        let Some(schema) = &address.schema else {
            return Err(unusable("has no schema for this user to make tables in: name one, as in `?schema=machina`"));
        };
        let create = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
        sqlx::query(create).execute(&mut *connection).await.map_err(database_error)?;
    }
    match fetch_all(connection, OTHERS).await?.first() {
        Some(row) => {
            let name: &str = get(row, "name")?;
            Err(unusable(&format!(
                "has a table `{name}` of another program: name a schema of its own, as in `?schema=machina`"
            )))
        }
        None => Ok(()),
    }
}
