//! What Machina logs, for a function of JavaScript. Silent until one asks for it,
//! and then never waits: what the thread of Node is too slow for is counted and lost.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use machina_core::Error;
use napi::Status;
use napi::bindgen_prelude::Result;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::subscriber::set_global_default;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::{Layer, Registry, reload};

use crate::failure::thrown;

/// How many records may wait for the thread of Node.
const RECORDS_MAX: usize = 10_000;

/// Who gets the records, in JSON.
type Listener = ThreadsafeFunction<String, (), String, Status, false, true, RECORDS_MAX>;

type Filter = reload::Handle<Targets, Registry>;

static LISTENER: Mutex<Option<Arc<Listener>>> = Mutex::new(None);
static LOST: AtomicU64 = AtomicU64::new(0);

/// The filter of the one log of this process; none where something else in it logs
/// through the same library already.
static FILTER: LazyLock<Option<Filter>> = LazyLock::new(|| {
    let (filter, handle) = reload::Layer::new(Targets::new());
    let subscriber = tracing_subscriber::registry().with(filter).with(Bridge);
    set_global_default(subscriber).is_ok().then_some(handle)
});

/// Has what passes `filter`, such as `info` or `warn,machina_mcp=debug`, told to
/// `listener`; without one, nobody is told any more. There is one for the process.
#[napi(ts_args_type = "filter?: string | undefined | null, listener?: ((record: string) => void) | undefined | null")]
pub fn listen_to_log(filter: Option<String>, listener: Option<Listener>) -> Result<()> {
    let wrong = |_| {
        let detail = "must be a level (error, warn, info, debug, trace), or such as `warn,machina_mcp=debug`";
        thrown(&Error::invalid_field("filter", detail))
    };
    let targets = match (&listener, filter) {
        (Some(_), Some(filter)) => filter.parse::<Targets>().map_err(wrong)?,
        _ => Targets::new(),
    };
    if listener.is_none() && LISTENER.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
        return Ok(());
    }
    let taken = || thrown(&Error::unsupported("something else in this process has the log"));
    let filter = FILTER.as_ref().ok_or_else(taken)?;
    filter.reload(targets).map_err(|_| taken())?;
    *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = listener.map(Arc::new);
    Ok(())
}

/// Carries records to the listener.
struct Bridge;

impl<S: tracing::Subscriber> Layer<S> for Bridge {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let Some(listener) = LISTENER.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let lost = LOST.swap(0, Ordering::Relaxed);
        let mut record = json!({
            "at": machina_core::now(), "level": metadata.level().as_str().to_lowercase(), "target": metadata.target(),
            "message": fields.message, "fields": fields.others,
        });
        if lost > 0 {
            record["lost"] = lost.into();
        }
        if listener.call(record.to_string(), ThreadsafeFunctionCallMode::NonBlocking) != Status::Ok {
            LOST.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.set(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.set(field, value.into());
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}
