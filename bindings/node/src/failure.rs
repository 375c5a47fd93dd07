//! Errors of the core as errors of Node: the one place where they are translated.
//! The message is JSON, of which `index.js` makes a `MachinaError`, because an
//! error that a promise is rejected with carries nothing else.

use machina_core::Error;
use serde_json::json;

/// What JavaScript is thrown for `error`.
pub(crate) fn thrown(error: &Error) -> napi::Error {
    let parts = json!({"code": error.kind(), "message": error.message(), "context": error.context()});
    napi::Error::from_reason(parts.to_string())
}
