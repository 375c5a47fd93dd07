//! What a program adds to the server: routes of its own, and what this crate
//! cannot know by itself.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use machina_core::Result;

use super::connect::{ConnectAnswer, ConnectRequest};

type Configure = dyn Fn(&ConnectRequest) -> Result<ConnectAnswer> + Send + Sync;

/// Knows how hosts are configured.
#[derive(Clone)]
pub(super) struct Connect(Arc<Configure>);

impl Connect {
    pub(super) fn answer(&self, request: &ConnectRequest) -> Result<ConnectAnswer> {
        (self.0)(request)
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connect(..)")
    }
}

/// What is served besides the API. A [`Router`] by itself will do where that is
/// all there is.
#[derive(Debug, Clone, Default)]
pub struct Extensions {
    pub(super) routes: Router,
    pub(super) public: Router,
    pub(super) connect: Option<Connect>,
}

impl Extensions {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Further routes, such as `/mcp`, that share the server's protection against
    /// foreign hosts and origins, its CORS settings, its request ids and its
    /// answer to panics. Limits on bodies and on time are theirs to set.
    #[must_use]
    pub fn routes(self, routes: Router) -> Self {
        Self { routes: self.routes.merge(routes), ..self }
    }

    /// The same for routes that pages of every origin may read: they answer
    /// preflight requests, and say so in their CORS headers, themselves.
    #[must_use]
    pub fn public(self, routes: Router) -> Self {
        Self { public: self.public.merge(routes), ..self }
    }

    /// How hosts are configured, for `…/connect`.
    #[must_use]
    pub fn connect(self, connect: impl Fn(&ConnectRequest) -> Result<ConnectAnswer> + Send + Sync + 'static) -> Self {
        Self { connect: Some(Connect(Arc::new(connect))), ..self }
    }
}

impl From<Router> for Extensions {
    fn from(routes: Router) -> Self {
        Self { routes, ..Self::default() }
    }
}
