//! What was executed, over all instances: the truth that the answers of Machina
//! are compared with. An execution is in the ledger before its answer is made.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machina_tests::farm::{Executed, Sizes};

use crate::mcp::Call;

/// The books of the farm.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    executed: Mutex<HashMap<String, Executed>>,
    /// Calls whose cut was made.
    cut: Mutex<HashSet<String>>,
    sizes: Mutex<HashMap<String, Sizes>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Notes that `call` runs.
    pub(crate) fn execute(&self, call: &Call) {
        let mut executed = lock(&self.executed);
        executed.entry(call.id.clone()).or_insert(Executed { class: call.class, times: 0 }).times += 1;
    }

    /// Whether this is the first attempt of a call that is to be cut.
    pub(crate) fn first_cut(&self, id: &str) -> bool {
        lock(&self.cut).insert(id.to_owned())
    }

    pub(crate) fn measured(&self, id: &str, sizes: Sizes) {
        lock(&self.sizes).insert(id.to_owned(), sizes);
    }

    pub(crate) fn executions(&self) -> HashMap<String, Executed> {
        lock(&self.executed).clone()
    }

    pub(crate) fn sizes(&self) -> HashMap<String, Sizes> {
        lock(&self.sizes).clone()
    }
}
