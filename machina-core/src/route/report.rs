//! What is told of a call that was answered: the answer, and how it was come by.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::connect::Carried;
use crate::error::{Error, ErrorKind, Outcome, Phase, Result};
use crate::model::{InstanceId, ToolResult};

/// One attempt of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attempt {
    /// The instance.
    pub instance: InstanceId,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// How many bytes of the request were handed to the transport.
    #[serde(default)]
    pub bytes_sent: u64,
    /// How many bytes of the answer came.
    #[serde(default)]
    pub bytes_received: u64,
    /// How it failed; `None` when it answered.
    pub error: Option<ErrorKind>,
    /// How far it had come when it failed.
    pub phase: Option<Phase>,
    /// What is known about its effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// It was sent because another one was slow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hedge: bool,
    /// It was given up because another one was faster, or the caller went away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abandoned: bool,
}

impl Attempt {
    /// An attempt that ended well, or as `error` says, after `duration`.
    pub(super) fn ended(instance: InstanceId, duration: Duration, carried: &Carried, error: Option<&Error>) -> Self {
        let phase = error.and_then(|error| error.context().phase);
        Self {
            instance,
            duration_ms: duration.as_secs_f64() * 1000.0,
            bytes_sent: carried.sent(),
            bytes_received: carried.received(),
            error: error.map(Error::kind),
            phase,
            outcome: match error {
                None => Some(Outcome::Executed),
                Some(error) => error.context().outcome.or(phase.map(Phase::outcome)),
            },
            hedge: false,
            abandoned: false,
        }
    }
}

/// An answer, and how it was come by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallReport {
    /// What the tool answered.
    pub result: ToolResult,
    /// The instance that answered.
    pub instance: InstanceId,
    /// Every attempt, the last one successful.
    pub attempts: Vec<Attempt>,
    /// How long it took in all, in milliseconds.
    pub duration_ms: f64,
    /// How old the answer is, in milliseconds, where it was kept from an earlier
    /// call of the same: then there was no attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

impl CallReport {
    /// The key in `_meta` under which [`CallReport::annotated`] says how the
    /// answer was come by.
    pub const META_KEY: &'static str = "dev.machina/call";

    /// The result with `_meta` saying the instance, the number of attempts, the
    /// duration, and each attempt; and the age of an answer that was kept.
    #[must_use]
    pub fn annotated(mut self) -> ToolResult {
        let mut how = json!({"instance": self.instance, "attempts": self.attempts.len(),
            "duration_ms": self.duration_ms, "tried": self.attempts});
        if let Some(age) = self.age_ms {
            how["age_ms"] = age.into();
        }
        match self.result.0.entry("_meta").or_insert_with(|| json!({})) {
            Value::Object(meta) => drop(meta.insert(Self::META_KEY.to_owned(), how)),
            other => *other = json!({ Self::META_KEY: how }),
        }
        self.result
    }

    /// What [`CallReport::annotated`] made the result of.
    ///
    /// # Errors
    /// [`Rejected`](ErrorKind::Rejected) when it did not.
    pub fn of_annotated(mut result: ToolResult) -> Result<Self> {
        #[derive(Deserialize)]
        struct How {
            instance: InstanceId,
            duration_ms: f64,
            tried: Vec<Attempt>,
            age_ms: Option<u64>,
        }
        let unknown =
            || Error::rejected(format!("the answer does not say in _meta[\"{}\"] how it was come by", Self::META_KEY));
        let meta = result.0.get_mut("_meta").and_then(Value::as_object_mut).ok_or_else(unknown)?;
        let how = meta.shift_remove(Self::META_KEY).ok_or_else(unknown)?;
        if meta.is_empty() {
            result.0.shift_remove("_meta");
        }
        let How { instance, duration_ms, tried, age_ms } = serde_json::from_value(how).map_err(|_| unknown())?;
        Ok(Self { result, instance, attempts: tried, duration_ms, age_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(result: Value) -> CallReport {
        let instance = InstanceId::generate();
        let refused = Error::unreachable("x").at(Phase::NotSent);
        let failed =
            Attempt::ended(InstanceId::generate(), Duration::from_micros(500), &Carried::default(), Some(&refused));
        let answered =
            Attempt { hedge: true, ..Attempt::ended(instance, Duration::from_millis(2), &Carried::default(), None) };
        let result = ToolResult(result.as_object().cloned().unwrap());
        CallReport { result, instance, attempts: vec![failed, answered], duration_ms: 2.75, age_ms: None }
    }

    #[test]
    fn an_annotated_result_says_all_of_the_report() {
        for result in [json!({"content": []}), json!({"_meta": {"a": 1}, "content": []})] {
            let report = report(result);
            let annotated = report.clone().annotated();
            assert_eq!(annotated.0["_meta"][CallReport::META_KEY]["attempts"], 2);
            assert_eq!(CallReport::of_annotated(annotated).unwrap(), report);
        }
        let kept = CallReport { attempts: Vec::new(), age_ms: Some(1500), ..report(json!({"content": []})) };
        assert_eq!(kept.clone().annotated().0["_meta"][CallReport::META_KEY]["age_ms"], 1500);
        assert_eq!(CallReport::of_annotated(kept.clone().annotated()).unwrap(), kept);
        let odd = report(json!({"_meta": "odd"})).annotated();
        assert_eq!(odd.0["_meta"][CallReport::META_KEY]["duration_ms"], 2.75);
    }

    #[test]
    fn a_result_without_annotation_is_no_report() {
        for result in [json!({}), json!({"_meta": {}}), json!({"_meta": {CallReport::META_KEY: {"attempts": 1}}})] {
            let error = CallReport::of_annotated(report(result).result).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected);
        }
    }
}
