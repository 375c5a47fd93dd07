//! How many calls a principal may make and a service takes. Counted before anything
//! is looked at that costs more, so that one caller does not use up what is
//! everyone's. Refuses to hold calls back: whoever is too fast is told when to
//! come again.

use std::time::Duration;

use super::scoped::Scoped;
use crate::error::{Error, Phase, Result};
use crate::replies::RequestHash;
use crate::scratch::{Admission, Rate};
use crate::view::ServiceView;

impl Scoped {
    /// Counts a request to a service.
    ///
    /// # Errors
    /// [`Overloaded`](crate::ErrorKind::Overloaded), saying when to come again, when
    /// the principal or all callers together have made as many as they may.
    pub(super) async fn admit(&self, view: &ServiceView) -> Result<()> {
        let access = &self.core.config.access;
        let own = Rate::limited(access.calls_per_minute, access.calls_burst);
        let service = Rate::limited(view.routing.calls_per_minute, view.routing.calls_burst);
        if own.is_none() && service.is_none() {
            return Ok(());
        }
        Box::pin(self.count(view, own, service)).await
    }

    async fn count(&self, view: &ServiceView, own: Option<Rate>, service: Option<Rate>) -> Result<()> {
        let scratches = &self.core.scratches;
        if let Some(rate) = own {
            let (id, tenant) = (&self.principal.id, self.principal.tenant.as_deref());
            let tenant = tenant.map_or_else(String::new, |tenant| format!("tenant {tenant}"));
            let key = RequestHash::of([id.as_bytes(), tenant.as_bytes()]);
            if let Admission::After(wait) = scratches.take(&format!("principal:{}", key.as_str()), rate).await {
                let what = format!("`{id}` may make {} calls a minute", rate.per_minute);
                return Err(too_fast(view, &what, wait));
            }
        }
        if let Some(rate) = service {
            let key = format!("service:{}", view.service().id);
            if let Admission::After(wait) = scratches.take(&key, rate).await {
                let what = format!("`{}` takes {} calls a minute", view.service().name(), rate.per_minute);
                return Err(too_fast(view, &what, wait));
            }
        }
        Ok(())
    }
}

fn too_fast(view: &ServiceView, what: &str, wait: Duration) -> Error {
    let error = Error::overloaded(format!("{what}, and these are used up")).at(Phase::NotSent);
    error.retry_after(wait.max(Duration::from_millis(1))).with(|context| {
        context.service = Some(view.service().name().to_string());
        context.attempts = Some(0);
    })
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
