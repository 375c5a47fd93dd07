//! Pages of services as they were just answered. Many readers ask for the same
//! page; to write it anew for each costs far more than to send it. A page is sent
//! again as long as the view is the one that it was read from, and for a moment
//! only: some figures, such as the time of the last check, change between views.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use machina_core::{Scoped, View};
use tokio::time::Instant;

use super::written::Written;

/// How long a page is sent again.
const KEPT: Duration = Duration::from_millis(100);
/// How many pages are kept, and the longest address of one.
const PAGES_MAX: usize = 64;
const URI_BYTES_MAX: usize = 1024;

/// The pages that were answered a moment ago.
#[derive(Debug, Default)]
pub(super) struct Pages {
    by_reader: Mutex<HashMap<(Option<String>, String), Kept>>,
}

#[derive(Debug)]
struct Kept {
    /// Keeps the place of the view from being used again, and nothing else of it.
    view: Weak<View>,
    at: Instant,
    page: Written,
}

impl Pages {
    /// The page that those who see what `reader` does got at `uri` of `view`.
    pub(super) fn get(&self, reader: &Scoped, uri: &str, view: &Arc<View>) -> Option<Written> {
        let by_reader = self.by_reader.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = by_reader.get(&(reader.principal().tenant.clone(), uri.to_owned()))?;
        let current = Weak::as_ptr(&kept.view) == Arc::as_ptr(view) && kept.at.elapsed() < KEPT;
        current.then(|| kept.page.clone())
    }

    /// Keeps a page that was read when `view` was the current one, or later.
    pub(super) fn put(&self, reader: &Scoped, uri: &str, view: &Arc<View>, page: &Written) {
        if uri.len() > URI_BYTES_MAX {
            return;
        }
        let kept = Kept { view: Arc::downgrade(view), at: Instant::now(), page: page.clone() };
        let mut by_reader = self.by_reader.lock().unwrap_or_else(PoisonError::into_inner);
        by_reader.retain(|_, kept| kept.at.elapsed() < KEPT);
        if by_reader.len() < PAGES_MAX {
            by_reader.insert((reader.principal().tenant.clone(), uri.to_owned()), kept);
        }
    }
}
