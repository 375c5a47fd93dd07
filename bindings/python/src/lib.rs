//! The native half of the Python package `machina`: carries JSON between Python
//! and the facade, and awaits of asyncio to tasks of tokio. It holds no rule of the
//! registry and no shape of its answers; the public layer is `python/machina`.
//!
//! Refuses what a process cannot do well: to use after `fork` what was opened
//! before, to wait for Python on a thread of tokio, and to outlive the interpreter.

mod answer;
mod bridge;
mod courier;
mod drive;
mod engine;
mod failure;
mod fork;
mod handle;
mod letterbox;
mod logging;
mod native;
mod watch;

use pyo3::prelude::*;

/// See the head of the crate.
#[pymodule(gil_used = false)]
mod _machina {
    #[pymodule_export]
    use crate::engine::shutdown;
    #[pymodule_export]
    use crate::fork::{after_fork, before_fork, forked};
    #[pymodule_export]
    use crate::handle::{Handle, Told, open};
    #[pymodule_export]
    use crate::native::Reply;
    #[pymodule_export]
    use crate::watch::Watch;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
