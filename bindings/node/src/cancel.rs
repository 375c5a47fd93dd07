//! What an `AbortSignal` becomes: a token that calls and streams look at.

use napi_derive::napi;
use tokio_util::sync::CancellationToken;

/// Ends what it was handed to.
#[napi]
#[derive(Debug)]
pub struct Cancel {
    pub(crate) token: CancellationToken,
}

#[napi]
impl Cancel {
    /// One that has not fired.
    #[napi(constructor)]
    #[allow(clippy::new_without_default, reason = "JavaScript has no default")]
    #[must_use]
    pub fn new() -> Self {
        Self { token: CancellationToken::new() }
    }

    /// Fires; a second time nothing happens.
    #[napi]
    pub fn cancel(&self) {
        self.token.cancel();
    }
}
