//! Records as every database holds them: text that JSON, times and ids are read
//! from, and revisions as numbers with a sign. What cannot be read is named by its
//! column, and never repeated: it may be a secret.

use std::fmt::Display;
use std::str::FromStr;

use machina_core::{Error, Result, Revision};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A row, whichever database it is of.
pub(crate) trait Columns {
    /// The value of a column of text.
    fn text(&self, column: &str) -> Result<&str>;

    /// The value of a column of whole numbers.
    fn number(&self, column: &str) -> Result<i64>;

    /// The value of a column of whole numbers that may be empty.
    fn number_or_null(&self, column: &str) -> Result<Option<i64>>;

    /// The value of a column of bytes that may be empty.
    fn bytes_or_null(&self, column: &str) -> Result<Option<Vec<u8>>>;

    /// The value of a column of yes and no.
    fn flag(&self, column: &str) -> Result<bool>;
}

/// What a driver's rows give out, by its own function for a column.
macro_rules! columns_by {
    ($row:ty, $get:path) => {
        impl $crate::record::Columns for $row {
            fn text(&self, column: &str) -> machina_core::Result<&str> {
                $get(self, column)
            }
            fn number(&self, column: &str) -> machina_core::Result<i64> {
                $get(self, column)
            }
            fn number_or_null(&self, column: &str) -> machina_core::Result<Option<i64>> {
                $get(self, column)
            }
            fn bytes_or_null(&self, column: &str) -> machina_core::Result<Option<Vec<u8>>> {
                $get(self, column)
            }
            fn flag(&self, column: &str) -> machina_core::Result<bool> {
                $get(self, column)
            }
        }
    };
}
pub(crate) use columns_by;

/// The value of a column of text that `T` is parsed from.
pub(crate) fn get_parsed<T: FromStr>(row: &impl Columns, column: &str) -> Result<T>
where
    T::Err: Display,
{
    row.text(column)?.parse().map_err(|error| unreadable(column, error))
}

/// The value of a column of text that holds JSON.
pub(crate) fn get_json<T: DeserializeOwned>(row: &impl Columns, column: &str) -> Result<T> {
    serde_json::from_str(row.text(column)?).map_err(|error| unreadable(column, error))
}

/// The value of a column of revisions.
pub(crate) fn get_revision(row: &impl Columns, column: &str) -> Result<Revision> {
    u64::try_from(row.number(column)?).map(Revision).map_err(|error| unreadable(column, error))
}

/// A revision as a parameter.
pub(crate) fn revision_value(revision: Revision) -> Result<i64> {
    i64::try_from(revision.0).map_err(|_| Error::internal("the store has run out of revisions"))
}

/// `value` as JSON text.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("a record has no JSON form").caused_by(error))
}

/// The database holds something that no version of Machina wrote.
pub(crate) fn unreadable(column: &str, error: impl Display) -> Error {
    Error::internal(format!("the database holds an unreadable `{column}`: {error}"))
}
