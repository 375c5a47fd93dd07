//! JSON from and for programs of other languages: read strictly, with the field
//! that is wrong.

use machina_core::json::strict_from_slice;
use machina_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads what a program wrote.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    typed(strict_from_slice(json).map_err(|error| Error::invalid(format!("is no JSON: {error}")))?)
}

/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        Error::invalid_field(if path == "." { "value" } else { &path }, error.into_inner().to_string())
    })
}

/// An answer in JSON.
///
/// # Errors
/// [`Internal`](machina_core::ErrorKind::Internal) for one that has no JSON form.
pub fn written<T: Serialize>(answer: &T) -> Result<String> {
    serde_json::to_string(answer).map_err(|error| Error::internal("an answer is no JSON").caused_by(error))
}
