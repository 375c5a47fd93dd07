//! What readers were told of services, kept as text: a service that is looked at
//! again and has not changed is not written anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use machina_core::Result;
use machina_http::assemble::{Embedded, Seen};

/// Of how many services the text is kept.
const KEPT_MAX: usize = 4_000;

/// The texts of one handle, and what they say.
#[derive(Default)]
pub(crate) struct Telling(Mutex<HashMap<String, (Seen, Arc<str>)>>);

impl Telling {
    /// The service of this name, in JSON.
    ///
    /// # Errors
    /// As [`Embedded::look`].
    pub(crate) fn service(&self, embedded: &Embedded, name: &str) -> Result<Arc<str>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.get(name);
        let Some((seen, json)) = embedded.look(name, known.map(|(seen, _)| seen))? else {
            return Ok(known.map(|(_, json)| Arc::clone(json)).unwrap_or_default());
        };
        let json: Arc<str> = json.into();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(name.to_owned(), (seen, Arc::clone(&json)));
        Ok(json)
    }
}
