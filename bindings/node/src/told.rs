//! What readers were told of services, kept as text: a service that is looked at
//! again and has not changed is not written anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machina_core::{Result, Scoped, ServiceReport, ServiceView};
use tokio::time::Instant;

use crate::question::written;

/// How old the figures of a service may be, such as when it was last checked: they
/// change without notice, everything else does not.
const FIGURES_KEPT: Duration = Duration::from_secs(1);

/// Of how many services the text is kept.
const KEPT_MAX: usize = 4_000;

struct Told {
    view: Arc<ServiceView>,
    at: Instant,
    json: Arc<str>,
}

/// The texts of one handle.
#[derive(Default)]
pub(crate) struct Telling(Mutex<HashMap<String, Told>>);

impl Telling {
    /// The service of this name, in JSON.
    ///
    /// # Errors
    /// [`NotFound`](machina_core::ErrorKind::NotFound).
    pub(crate) fn service(&self, registry: &Scoped, name: &str) -> Result<Arc<str>> {
        let (view, now) = (registry.service(name)?, Instant::now());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = kept.get(name)
            && Arc::ptr_eq(&told.view, &view)
            && now - told.at < FIGURES_KEPT
        {
            return Ok(Arc::clone(&told.json));
        }
        let json: Arc<str> = written(&ServiceReport::from(&*view))?.into();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(name.to_owned(), Told { view, at: now, json: Arc::clone(&json) });
        Ok(json)
    }
}
