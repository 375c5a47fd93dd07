//! What services log while a request of a host runs, as far as the host wants to
//! hear of it: who asked for nothing gets nothing. Refuses to keep any of it; what
//! does not fit into the outbox is lost.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use machina_core::{CallOptions, Era, LOG_LEVEL, LogSink, ServiceName};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::gateway::{Outbox, Outgoing};
use super::rpc::{self, Fault, INVALID_PARAMS, Object, Request};

/// From the least to the most urgent.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// How many places in the outbox are kept for progress and the answer.
const PLACES_KEPT: usize = 4;

fn level_of(name: &Value) -> Option<usize> {
    let name = name.as_str()?;
    LEVELS.iter().position(|level| *level == name)
}

/// The level from which on a host of the older era wants to hear of logs: of
/// none, until it says so.
#[derive(Debug, Clone)]
pub(crate) struct LogLevel(Arc<AtomicUsize>);

impl Default for LogLevel {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(LEVELS.len())))
    }
}

impl LogLevel {
    /// What the parameters of `logging/setLevel` say.
    pub(super) fn set(&self, params: &Object) -> Result<(), Fault> {
        let level = params.get("level").and_then(level_of);
        let level =
            level.ok_or_else(|| Fault::new(INVALID_PARAMS, format!("level: must be one of {}", LEVELS.join(", "))))?;
        self.0.store(level, Ordering::Relaxed);
        Ok(())
    }

    fn get(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|level| *level < LEVELS.len())
    }
}

/// The least level of a log that the host of `request` wants to hear of.
pub(super) fn least(request: &Request, era: Era, of_host: Option<&LogLevel>) -> Option<usize> {
    match era {
        Era::Modern => request.meta(LOG_LEVEL).and_then(level_of),
        Era::Legacy => of_host?.get(),
    }
}

/// Passes logs from the level `least` on to a host, as long as `over` has not fired.
pub(super) fn sink(least: usize, outbox: &Outbox, over: &CancellationToken) -> LogSink {
    let (outbox, over) = (outbox.downgrade(), over.clone());
    Arc::new(move |params| {
        if level_of(&params["level"]).is_none_or(|level| level < least) || over.is_cancelled() {
            return;
        }
        let Some(outbox) = outbox.upgrade().filter(|outbox| outbox.capacity() > PLACES_KEPT) else { return };
        let _ = outbox.try_send(Outgoing::Notification(rpc::notification("notifications/message", &params)));
    })
}

/// The name of a level, for services that take it with each request.
pub(super) fn name(level: usize) -> Value {
    LEVELS[level].into()
}

/// The options of what goes to `service`: what it logs says from where it comes.
pub(super) fn signed<'a>(options: &'a CallOptions, service: &ServiceName) -> Cow<'a, CallOptions> {
    let Some(sink) = options.log.clone() else { return Cow::Borrowed(options) };
    let service = service.to_string();
    let signing: LogSink = Arc::new(move |mut params: Value| {
        let Some(message) = params.as_object_mut() else { return };
        let logger = match message.get("logger").and_then(Value::as_str) {
            Some(own) => format!("{service}/{own}"),
            None => service.clone(),
        };
        message.insert("logger".to_owned(), logger.into());
        sink(params);
    });
    Cow::Owned(CallOptions { log: Some(signing), ..options.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::rpc::{Id, object};
    use serde_json::json;
    use tokio::sync::mpsc;

    fn said(queue: &mut mpsc::Receiver<Outgoing>) -> Vec<Value> {
        std::iter::from_fn(|| match queue.try_recv().ok()? {
            Outgoing::Notification(text) => Some(serde_json::from_str(&text).unwrap()),
            Outgoing::Answer(_) => None,
        })
        .collect()
    }

    #[test]
    fn each_era_says_in_its_own_way_what_it_wants_to_hear() {
        let id = Id::of(&json!(1)).unwrap();
        let params = object(json!({"_meta": {LOG_LEVEL: "error"}}));
        let request = Request { id, method: "tools/call".to_owned(), params };
        let host = LogLevel::default();
        assert_eq!(
            (least(&request, Era::Modern, Some(&host)), least(&request, Era::Legacy, Some(&host))),
            (Some(4), None)
        );
        host.set(&object(json!({"level": "debug"}))).unwrap();
        assert_eq!(least(&request, Era::Legacy, Some(&host)), Some(0));
        let mut odd = request;
        odd.params = object(json!({"_meta": {LOG_LEVEL: "loud"}}));
        assert_eq!(least(&odd, Era::Modern, Some(&host)), None);
        for params in [json!({}), json!({"level": "loud"}), json!({"level": 3})] {
            assert_eq!(host.set(&object(params)).unwrap_err().code, INVALID_PARAMS);
        }
        assert_eq!(least(&odd, Era::Legacy, None), None);
        assert_eq!(least(&odd, Era::Legacy, Some(&host)), Some(0), "what is wrong changes nothing");
    }

    #[test]
    fn what_is_urgent_enough_is_passed_on_under_the_name_of_its_service() {
        let (outbox, mut queue) = mpsc::channel(16);
        let over = CancellationToken::new();
        let options = CallOptions { log: Some(sink(3, &outbox, &over)), ..CallOptions::default() };
        let log = signed(&options, &"disk".parse().unwrap()).log.clone().unwrap();
        for level in ["debug", "warning", "loud", "alert"] {
            log(json!({"level": level, "data": {"z": 1, "a": 2}, "x-more": true}));
        }
        log(json!({"level": "error", "logger": "io", "data": "x"}));
        log(json!("odd"));
        let told = said(&mut queue);
        let loggers: Vec<_> = told.iter().map(|told| &told["params"]["logger"]).collect();
        assert_eq!(loggers, ["disk", "disk", "disk/io"]);
        assert_eq!(told[0]["method"], "notifications/message");
        let want = r#"{"level":"warning","data":{"z":1,"a":2},"x-more":true,"logger":"disk"}"#;
        assert_eq!(told[0]["params"].to_string(), want);
        over.cancel();
        log(json!({"level": "alert", "data": 1}));
        assert!(said(&mut queue).is_empty(), "after the answer comes nothing");
    }

    #[test]
    fn a_flood_leaves_room_for_the_answer_and_no_one_waits() {
        let (outbox, mut queue) = mpsc::channel(16);
        let log = sink(0, &outbox, &CancellationToken::new());
        for line in 0..1_000 {
            log(json!({"level": "info", "data": line}));
        }
        assert_eq!((outbox.capacity(), said(&mut queue).len()), (PLACES_KEPT, 16 - PLACES_KEPT));
        drop(outbox);
        log(json!({"level": "info", "data": 1}));
    }

    #[test]
    fn who_wants_no_logs_has_the_options_as_they_are() {
        let options = CallOptions::default();
        assert!(matches!(signed(&options, &"disk".parse().unwrap()), Cow::Borrowed(_)));
    }
}
