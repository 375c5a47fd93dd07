//! What a reader was told of a service, so that one that has not changed is not
//! told again.

use std::fmt;

use machina_http::assemble::Seen;
use napi_derive::napi;

/// Shown the next time that the service is looked at.
#[napi]
pub struct Told {
    pub(crate) seen: Seen,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Told").field(&self.seen).finish()
    }
}

/// A service in JSON, and what to show the next time.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Looked {
    pub told: Told,
    pub service: String,
}
