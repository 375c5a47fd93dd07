//! Which instance calls with the same key go to: the one that draws the highest
//! number for it (rendezvous hashing, Thaler and Ravishankar 1998), so that when
//! one goes or comes only its own keys move. Pure; the same in every process.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::quality::FixedState;
use serde_json::{Map, Value};

use super::balance::Candidate;
use crate::model::InstanceId;

/// The position, among `candidates`, of the one that `key` belongs to. `id` tells
/// the instance at a position of the service.
pub(super) fn rendezvous(key: &str, candidates: &[Candidate], id: impl Fn(usize) -> InstanceId) -> usize {
    let scores = candidates.iter().map(|candidate| score(key, id(candidate.index), candidate.weight));
    scores.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(position, _)| position)
}

/// Weighted as by Schindelhauer and Schomaker (2005): an instance of twice the
/// weight has twice the keys, and a change of one weight moves only its keys.
fn score(key: &str, instance: InstanceId, weight: u32) -> f64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(key.as_bytes());
    hasher.write(instance.as_uuid().as_bytes());
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let drawn = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight.max(1)) / drawn.ln()
}

/// The key in the value of the argument `name`: text as it is, anything else as
/// JSON.
pub(super) fn key_of<'a>(arguments: &'a Map<String, Value>, name: &str) -> Option<Cow<'a, str>> {
    match arguments.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn id(index: usize) -> InstanceId {
        InstanceId::from(Uuid::from_u128(index as u128 + 1))
    }

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let one = |(index, weight): (usize, &u32)| Candidate::new(index, *weight);
        weights.iter().enumerate().map(one).collect()
    }

    fn owners(candidates: &[Candidate]) -> Vec<usize> {
        (0..3000).map(|key| candidates[rendezvous(&format!("session {key}"), candidates, id)].index).collect()
    }

    #[test]
    fn keys_are_shared_out_by_weight() {
        let owners = owners(&candidates(&[1, 1, 2]));
        let count = |index| owners.iter().filter(|owner| **owner == index).count();
        for (index, expected) in [(0, 750_usize), (1, 750), (2, 1500)] {
            assert!(count(index).abs_diff(expected) < 120, "{index}: {}", count(index));
        }
    }

    #[test]
    fn only_the_keys_of_an_instance_move_when_it_goes_or_comes() {
        let all = candidates(&[1, 1, 1, 1]);
        let before = owners(&all);
        for gone in 0..4 {
            let rest: Vec<_> = all.iter().filter(|candidate| candidate.index != gone).copied().collect();
            let after = owners(&rest);
            assert!(before.iter().zip(&after).all(|(b, a)| if *b == gone { *a != gone } else { a == b }));
        }
    }

    #[test]
    fn a_key_is_the_value_of_the_argument() {
        let arguments = json!({"user": "ann", "tenant": {"id": 7}, "none": null});
        let of = |name| key_of(arguments.as_object().unwrap(), name);
        assert_eq!(of("user").as_deref(), Some("ann"));
        assert_eq!(of("tenant").as_deref(), Some(r#"{"id":7}"#));
        assert_eq!((of("none"), of("absent")), (None, None));
    }
}
