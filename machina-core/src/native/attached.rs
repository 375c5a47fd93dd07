//! The functions that this process has for one service. Replaced and removed while
//! calls run; a call keeps the function that it began with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::tool::{Body, NativeTool};
use crate::error::{Error, Result};
use crate::model::{ServiceName, Tool};

/// How many tools a service may have.
const TOOLS_MAX: usize = 1000;

/// How many executions of one tool may be allowed to run at once.
const EXECUTIONS_MOST: u32 = 10_000;

/// A function, and the tool that it is.
pub(super) struct Function {
    pub(super) tool: Arc<Tool>,
    pub(super) body: Body,
    /// A place for each execution that may run.
    pub(super) places: Arc<Semaphore>,
    pub(super) executions_max: u32,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("tool", self.tool.name()).field("places", &self.places).finish_non_exhaustive()
    }
}

/// The functions for one service, by name.
#[derive(Debug)]
pub(super) struct Functions {
    pub(super) service: ServiceName,
    by_name: ArcSwap<BTreeMap<String, Arc<Function>>>,
    withdrawn: AtomicBool,
}

impl Functions {
    pub(super) fn new(service: ServiceName) -> Self {
        Self { service, by_name: ArcSwap::default(), withdrawn: AtomicBool::new(false) }
    }

    /// Adds a tool, or puts it in the place of the one of its name.
    pub(super) fn put(&self, tool: NativeTool) -> Result<()> {
        let NativeTool { definition, body, executions_max } = tool;
        if !(1..=EXECUTIONS_MOST).contains(&executions_max) {
            let detail = format!("must be 1 to {EXECUTIONS_MOST}, is {executions_max}");
            return Err(Error::invalid_field("executions_max", detail));
        }
        let tool = Arc::new(Tool::parse(definition)?);
        let name = tool.name().to_string();
        let places = Arc::new(Semaphore::new(executions_max as usize));
        let function = Arc::new(Function { tool, body, places, executions_max });
        let before = self.by_name.rcu(|known| {
            let mut next = BTreeMap::clone(known);
            if next.len() < TOOLS_MAX || next.contains_key(&name) {
                next.insert(name.clone(), Arc::clone(&function));
            }
            next
        });
        match before.len() < TOOLS_MAX || before.contains_key(&name) {
            true => Ok(()),
            false => Err(Error::overloaded(format!("`{}` has {TOOLS_MAX} tools, and may not have more", self.service))),
        }
    }

    /// Says whether there was a tool of this name.
    pub(super) fn remove(&self, name: &str) -> bool {
        let before = self.by_name.rcu(|known| {
            let mut next = BTreeMap::clone(known);
            next.remove(name);
            next
        });
        before.contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Function>> {
        self.by_name.load().get(name).cloned()
    }

    /// Its tools, by name.
    pub(super) fn tools(&self) -> Vec<Arc<Tool>> {
        self.by_name.load().values().map(|function| Arc::clone(&function.tool)).collect()
    }

    /// A tool that takes no call now, because as many run as may.
    pub(super) fn busy(&self) -> Option<Arc<Function>> {
        self.by_name.load().values().find(|function| function.places.available_permits() == 0).cloned()
    }

    pub(super) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }
}
