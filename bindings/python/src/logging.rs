//! What Machina logs, as records of Python's `logging` under `machina.`: the target
//! `machina_core::health` is the logger `machina.core.health`.
//!
//! Nothing is made of what nobody listens to: the level of the logger `machina` is
//! looked at when a handle is opened, and at most once a second while answers are
//! handed over. Records that the interpreter is too slow for are dropped.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use pyo3::prelude::*;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::courier::Courier;

/// How many records may wait for the interpreter.
const WAITING_MAX: usize = 1000;

/// Python's numbers for the levels, and the least that is told of; more than any
/// level when nothing is.
const SILENT: u8 = 255;

static LEAST: AtomicU8 = AtomicU8::new(SILENT);
static LOOKED_AT_MS: AtomicU64 = AtomicU64::new(0);
/// No lock: a child that is forked while one is held would wait for it for ever.
static COURIER: ArcSwapOption<Courier> = ArcSwapOption::const_empty();

struct Bridge {
    waiting: Arc<AtomicUsize>,
}

/// Sends what is logged through `courier` from now on.
pub(crate) fn start(courier: &Courier) {
    COURIER.store(Some(Arc::new(courier.clone())));
    // Only the first is taken: later ones are of a child of this process.
    drop(tracing::subscriber::set_global_default(Bridge { waiting: Arc::default() }));
}

/// Forgets the courier of the parent.
pub(crate) fn forget() {
    LEAST.store(SILENT, Ordering::Relaxed);
    LOOKED_AT_MS.store(0, Ordering::Relaxed);
    std::mem::forget(COURIER.swap(None));
}

/// Asks the logger `machina` from which level on it wants to be told.
pub(crate) fn look_at_level(py: Python<'_>) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let now = u64::try_from(BEGAN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX) + 1;
    let before = LOOKED_AT_MS.load(Ordering::Relaxed);
    if before != 0 && now.saturating_sub(before) < 1000 {
        return;
    }
    LOOKED_AT_MS.store(now, Ordering::Relaxed);
    let level = || -> PyResult<u32> {
        let logger = py.import("logging")?.call_method1("getLogger", ("machina",))?;
        if !logger.call_method0("hasHandlers")?.is_truthy()? {
            return Ok(u32::from(SILENT));
        }
        logger.call_method0("getEffectiveLevel")?.extract()
    };
    LEAST.store(level().map_or(SILENT, |level| u8::try_from(level).unwrap_or(SILENT)), Ordering::Relaxed);
}

const fn number(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

impl Subscriber for Bridge {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let ours = metadata.is_event() && metadata.target().starts_with("machina");
        if ours { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(metadata.level()) >= LEAST.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let (message, level) = (text.message + &text.rest, number(event.metadata().level()));
        let name = event.metadata().target().replace("::", ".").replacen('_', ".", 1);
        let waiting = Arc::clone(&self.waiting);
        let told = move |py: Python<'_>| {
            waiting.fetch_sub(1, Ordering::Relaxed);
            if let Err(failed) = tell(py, &name, level, &message) {
                failed.write_unraisable(py, None);
            }
        };
        match &*COURIER.load() {
            Some(courier) => courier.send(told),
            None => drop(self.waiting.fetch_sub(1, Ordering::Relaxed)),
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn tell(py: Python<'_>, name: &str, level: u8, message: &str) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1("getLogger", (name,))?;
    logger.call_method1("log", (level, "%s", message)).map(drop)
}

/// An event as one line: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    rest: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
        let _ = written;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => drop(write!(self.rest, " {name}={value}")),
        }
    }
}
