//! The stores that benchmarks compare, each empty at first and gone at the end.

#![allow(dead_code, reason = "each benchmark uses a part of this")]

use std::path::Path;
use std::process::Command;

use machina_benches::show;
use tempfile::TempDir;

/// Names a PostgreSQL database in which a schema may be made.
const POSTGRES: &str = "MACHINA_TEST_POSTGRES_URL";

/// A durable store for one benchmark.
pub(crate) struct Backing {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    home: TempDir,
    /// The database and the schema in it, where it is PostgreSQL.
    schema: Option<(String, String)>,
}

/// SQLite, and PostgreSQL where there is one.
pub(crate) fn all() -> Vec<Backing> {
    let mut all = vec![Backing::sqlite()];
    match std::env::var_os(POSTGRES) {
        Some(url) => all.push(Backing::postgres(&url.to_string_lossy())),
        None => show(&format!("(without PostgreSQL: {POSTGRES} is not set)")),
    }
    all
}

impl Backing {
    fn sqlite() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let url = format!("sqlite:{}", home.path().join("machina.db").display());
        Self { name: "SQLite", url, home, schema: None }
    }

    fn postgres(database: &str) -> Self {
        let schema = format!("bench_{}", std::process::id());
        let separator = if database.contains('?') { '&' } else { '?' };
        let url = format!("{database}{separator}schema={schema}");
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        Self { name: "PostgreSQL", url, home, schema: Some((database.to_owned(), schema)) }
    }

    /// A directory of its own.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// How many bytes it has on the disk, indexes and logs of its own included.
    pub(crate) fn bytes(&self) -> u64 {
        let Some((_, schema)) = &self.schema else {
            let files = std::fs::read_dir(self.home.path()).expect("the directory can be read").flatten();
            return files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        };
        let sizes = format!(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c \
             WHERE c.relkind = 'r' AND c.relnamespace = '{schema}'::regnamespace"
        );
        self.psql(&sizes).trim().parse().expect("psql prints a number")
    }

    /// Gives back what removed entries took, where the store leaves that to a process
    /// of its own which a shortened day has no time for.
    pub(crate) fn clean(&self) {
        let Some((_, schema)) = &self.schema else { return };
        for table in ["health_checks", "calls"] {
            self.psql(&format!("VACUUM {schema}.{table}"));
        }
    }

    fn psql(&self, statement: &str) -> String {
        let Some((database, _)) = &self.schema else { return String::new() };
        let output = Command::new("psql").args([database, "-qAt", "-c", statement]).output().expect("psql runs");
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Some((_, schema)) = &self.schema {
            self.psql(&format!("SET client_min_messages = warning; DROP SCHEMA IF EXISTS {schema} CASCADE"));
        }
    }
}
