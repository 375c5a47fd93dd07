//! The schema in numbered steps, as every database goes through them, and what is
//! said when it cannot. Refuses a schema that is newer than it knows.

use machina_core::{Error, Result};
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

/// The version, the name and the statements of each step, in order; the version is
/// the number in the file's name.
pub(crate) type Steps = [(i64, &'static str, &'static str)];

/// What goes through `steps`.
pub(crate) fn migrator(steps: &Steps) -> Migrator {
    let migration = |(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
    };
    Migrator::with_migrations(steps.iter().map(migration).collect())
}

/// What came of going through `steps` at `place`.
pub(crate) fn settle(
    migrated: Result<(), MigrateError>,
    place: &str,
    steps: &Steps,
    database_error: fn(sqlx::Error) -> Error,
) -> Result<()> {
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(version) => too_new(place, version, steps),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => database_error(error),
        other => Error::internal(format!("the schema of `{place}` cannot be brought up to date: {other}")),
    })
}

/// The schema at `place` is of a later version.
pub(crate) fn too_new(place: &str, schema: i64, steps: &Steps) -> Error {
    let known = steps.len();
    Error::unsupported(format!(
        "`{place}` was written by a newer Machina: it has schema {schema}, and this one knows only up to {known}"
    ))
}
