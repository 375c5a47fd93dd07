//! Native tools: functions of the program that Machina runs in, offered as the
//! tools of a service and called like any other.
//!
//! The service is declared as every service is, with an `in_process` instance;
//! that is what readers, groups, policies and other processes see. The functions
//! themselves are only ever in the process that attached them, under the name of
//! the service. A process that has none for it does not hold the instance for
//! dead: it says that the functions are elsewhere, and leaves its health unknown.
//!
//! Refuses to be a second registry: nothing here lists, finds or routes, and a
//! function without a declared service is never called.

mod answer;
mod attached;
#[cfg(any(test, feature = "builtin"))]
mod builtin;
mod run;
mod service;
mod session;
mod tool;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::attached::Functions;
#[cfg(any(test, feature = "builtin"))]
pub use self::builtin::Builtin;
pub use self::service::NativeService;
pub(crate) use self::session::NativeConnector;
pub use self::tool::{NativeFunction, NativeTool, Place};
use crate::error::{Error, Phase, Result};
use crate::health::{Reason, ReasonCode};
use crate::model::{Endpoint, ServiceName};

/// For how many services a process may have functions.
const SERVICES_MAX: usize = 1000;

/// The functions of this process, by the service whose tools they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Natives {
    attached: Arc<Mutex<HashMap<ServiceName, Arc<Functions>>>>,
    /// A connector of the program's own looks after `in_process` endpoints.
    replaced: bool,
}

impl Natives {
    /// No functions yet; none ever, where another connector reaches what is in process.
    pub(crate) fn new(replaced: bool) -> Self {
        Self { replaced, ..Self::default() }
    }

    fn attached(&self) -> MutexGuard<'_, HashMap<ServiceName, Arc<Functions>>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, service: &ServiceName) -> Option<Arc<Functions>> {
        self.attached().get(service).cloned()
    }

    /// The functions for `service`, none to begin with.
    fn attach(&self, service: &ServiceName) -> Result<Arc<Functions>> {
        if self.replaced {
            let message = "another connector of this registry handles `in_process` endpoints: leave it out of the \
                           builder to attach functions";
            return Err(Error::unsupported(message));
        }
        let mut attached = self.attached();
        if let Some(functions) = attached.get(service) {
            return Ok(Arc::clone(functions));
        }
        if attached.len() >= SERVICES_MAX {
            let message = format!("this process has functions for {SERVICES_MAX} services, and may not have more");
            return Err(Error::overloaded(message));
        }
        let functions = Arc::new(Functions::new(service.clone()));
        attached.insert(service.clone(), Arc::clone(&functions));
        Ok(functions)
    }

    /// The functions for `service` are there no more.
    fn withdraw(&self, service: &ServiceName) {
        if let Some(functions) = self.attached().remove(service) {
            functions.withdraw();
        }
    }

    /// Why an instance cannot be looked at here, where its functions are not in
    /// this process.
    pub(crate) fn absence(&self, service: &ServiceName, endpoint: &Endpoint) -> Option<Reason> {
        let here = self.replaced || !matches!(endpoint, Endpoint::InProcess) || self.attached().contains_key(service);
        (!here).then(|| Reason { code: ReasonCode::Elsewhere, message: elsewhere(service) })
    }
}

/// What a reader, or a caller, is told where the functions are not.
fn elsewhere(service: &ServiceName) -> String {
    format!(
        "the tools of `{service}` are functions of a program, and this process has none for it: call them in that \
         program, or attach functions here with native(\"{service}\")"
    )
}

fn not_here(service: &ServiceName) -> Error {
    Error::unavailable(elsewhere(service)).at(Phase::NotSent)
}

#[cfg(test)]
mod tests;
