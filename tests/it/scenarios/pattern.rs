//! Whether a value fits a pattern, as `tests/scenarios/README.md` says.

use serde_json::Value;

/// # Errors
/// Where it does not, and what is there instead.
pub(super) fn fits(pattern: &Value, value: &Value) -> Result<(), String> {
    at("", pattern, value)
}

fn at(place: &str, pattern: &Value, value: &Value) -> Result<(), String> {
    let wrong = || Err(format!("{}: {value} does not fit {pattern}", if place.is_empty() { "/" } else { place }));
    let held = |holds: bool| if holds { Ok(()) } else { wrong() };
    match pattern {
        Value::Object(fields) => match fields.iter().next() {
            Some((name, wanted)) if name.starts_with('$') && fields.len() == 1 => {
                held(matches(name, wanted, value).unwrap_or_else(|| panic!("{place}: there is no pattern {pattern}")))
            }
            _ if !value.is_object() => wrong(),
            _ => fields.iter().try_for_each(|(name, pattern)| {
                at(&format!("{place}/{name}"), pattern, value.get(name).unwrap_or(&Value::Null))
            }),
        },
        Value::Array(patterns) => match value.as_array() {
            Some(values) if values.len() == patterns.len() => {
                let mut pairs = patterns.iter().zip(values).enumerate();
                pairs.try_for_each(|(index, (pattern, value))| at(&format!("{place}/{index}"), pattern, value))
            }
            _ => wrong(),
        },
        Value::Number(_) => held(pattern.as_f64() == value.as_f64()),
        Value::Null | Value::Bool(_) | Value::String(_) => held(pattern == value),
    }
}

/// `None` for a name that is no pattern's.
fn matches(name: &str, wanted: &Value, value: &Value) -> Option<bool> {
    let fit = |pattern: &Value, value: &Value| fits(pattern, value).is_ok();
    let list = value.as_array();
    Some(match name {
        "$any" => !value.is_null(),
        "$absent" => value.is_null(),
        "$contains" => value.as_str().is_some_and(|text| text.contains(wanted.as_str().unwrap_or("\0"))),
        "$has" => list.is_some_and(|values| values.iter().any(|value| fit(wanted, value))),
        "$lacks" => list.is_some_and(|values| !values.iter().any(|value| fit(wanted, value))),
        "$length" => list.is_some_and(|values| Some(values.len() as u64) == wanted.as_u64()),
        "$not" => !fit(wanted, value),
        "$at_least" => value.as_f64().zip(wanted.as_f64()).is_some_and(|(value, least)| value >= least),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_pattern_tells_what_fits_from_what_does_not() {
        for (pattern, good, bad) in [
            (json!({"a": 1}), json!({"a": 1.0, "b": 2}), json!({"a": 2})),
            (json!({"a": {}}), json!({"a": {"b": 1}}), json!({"a": [1]})),
            (json!({"a": null}), json!({}), json!({"a": 0})),
            (json!([1, 2]), json!([1, 2]), json!([1, 2, 3])),
            (json!("x"), json!("x"), json!("xy")),
            (json!({"a": {"$any": true}}), json!({"a": 0}), json!({"a": null})),
            (json!({"a": {"$absent": true}}), json!({"a": null}), json!({"a": false})),
            (json!({"$contains": "b"}), json!("abc"), json!(["b"])),
            (json!({"$has": {"a": 1}}), json!([0, {"a": 1}]), json!([{"a": 2}])),
            (json!({"$lacks": {"a": 1}}), json!([{"a": 2}]), json!([{"a": 1}])),
            (json!({"$length": 2}), json!([0, 0]), json!([0])),
            (json!({"$not": {"$any": true}}), json!(null), json!(1)),
            (json!({"$at_least": 3}), json!(3.5), json!(2)),
        ] {
            assert_eq!(fits(&pattern, &good), Ok(()), "{pattern}");
            assert!(fits(&pattern, &bad).is_err(), "{pattern} and {bad}");
        }
        assert_eq!(fits(&json!({"a": [{"b": 1}]}), &json!({"a": [{"b": 2}]})).unwrap_err(), "/a/0/b: 2 does not fit 1");
    }

    #[test]
    #[should_panic(expected = "there is no pattern")]
    fn a_pattern_that_is_none_is_no_pattern() {
        let _ = fits(&json!({"$some": 1}), &json!(1));
    }
}
