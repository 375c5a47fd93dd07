//! Holds the arguments of a call against the schema that the tool's server
//! publishes, before anything is sent.
//!
//! A schema comes from someone who is not trusted: nothing is fetched (`$ref` is
//! local only), and one that could cost more than a bounded amount of work, or
//! cannot be read at all, judges nothing; the server then judges by itself.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use jsonschema::error::{ValidationError, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use crate::error::{Error, Phase, Problem, Result};

/// How many subschemas may be met on the way through a schema, references followed.
const SUBSCHEMAS_MAX: usize = 20_000;

/// How deep values may be nested, as in everything that is read.
const DEPTH_MAX: usize = 64;

/// How often subschemas may be held against values in one validation, as far as
/// that can be told beforehand.
const STEPS_MAX: usize = 5_000_000;

/// How often a pattern may take a step back.
const BACKTRACKS_MAX: usize = 100_000;

/// How many problems are told, and how long each may be.
const PROBLEMS_MAX: usize = 20;
const DETAIL_CHARS_MAX: usize = 300;

/// The schema of a tool's arguments, compiled when it is first needed.
#[derive(Clone, Default)]
pub(super) struct ArgumentSchema(OnceLock<Option<Arc<Compiled>>>);

struct Compiled {
    validator: Validator,
    /// How many subschemas are held against one value at the most.
    width: usize,
}

impl ArgumentSchema {
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) naming each argument that is wrong.
    pub(super) fn check(&self, schema: impl FnOnce() -> Value, arguments: &Map<String, Value>) -> Result<()> {
        let Some(compiled) = self.0.get_or_init(|| Compiled::of(&schema()).map(Arc::new)) else { return Ok(()) };
        let arguments = Value::Object(arguments.clone());
        if compiled.width.saturating_mul(values_in(&arguments)) > STEPS_MAX || compiled.validator.is_valid(&arguments) {
            return Ok(());
        }
        let errors = compiled.validator.iter_errors(&arguments).filter(is_judgement);
        let problems: Vec<Problem> = errors.take(PROBLEMS_MAX).flat_map(problems).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems).at(Phase::NotSent)) }
    }
}

/// Two of them are equal: what they are compiled from is compared elsewhere.
impl PartialEq for ArgumentSchema {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for ArgumentSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArgumentSchema")
    }
}

impl Compiled {
    /// `None` for a schema that cannot be read, or that could cost too much.
    fn of(schema: &Value) -> Option<Self> {
        let mut walk = Walk { root: schema, met: 0, width: 0 };
        walk.level(schema, 0)?;
        let patterns = PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS_MAX);
        let validator = jsonschema::options().with_pattern_options(patterns).offline().build(schema).ok()?;
        Some(Self { validator, width: walk.width })
    }
}

/// A walk through everything that validation could come to.
struct Walk<'a> {
    root: &'a Value,
    met: usize,
    width: usize,
}

impl<'a> Walk<'a> {
    /// Meets every subschema that could be held against one value, then those for
    /// the values in it. `None` when that never ends, or is too much.
    fn level(&mut self, schema: &'a Value, depth: usize) -> Option<()> {
        let (mut inner, before) = (Vec::new(), self.met);
        self.meet(schema, &mut HashSet::new(), &mut inner)?;
        self.width = self.width.max(self.met - before);
        if depth < DEPTH_MAX {
            for schema in inner {
                self.level(schema, depth + 1)?;
            }
        }
        Some(())
    }

    fn meet(&mut self, schema: &'a Value, path: &mut HashSet<&'a str>, inner: &mut Vec<&'a Value>) -> Option<()> {
        self.met += 1;
        if self.met > SUBSCHEMAS_MAX {
            return None;
        }
        let Value::Object(keywords) = schema else { return Some(()) };
        for (keyword, value) in keywords {
            match keyword.as_str() {
                "$ref" | "$dynamicRef" | "$recursiveRef" => {
                    let reference = value.as_str()?;
                    // A schema that refers to itself without going deeper never ends.
                    if !path.insert(reference) {
                        return None;
                    }
                    self.meet(self.root.pointer(reference.strip_prefix('#')?)?, path, inner)?;
                    path.remove(reference);
                }
                "allOf" | "anyOf" | "oneOf" => {
                    for schema in value.as_array()? {
                        self.meet(schema, path, inner)?;
                    }
                }
                "not" | "if" | "then" | "else" => self.meet(value, path, inner)?,
                "dependentSchemas" | "dependencies" => {
                    for schema in value.as_object()?.values() {
                        self.meet(schema, path, inner)?;
                    }
                }
                "properties" | "patternProperties" => inner.extend(value.as_object()?.values()),
                "items"
                | "prefixItems"
                | "additionalItems"
                | "contains"
                | "additionalProperties"
                | "propertyNames"
                | "unevaluatedItems"
                | "unevaluatedProperties" => match value {
                    Value::Array(each) => inner.extend(each),
                    one => inner.push(one),
                },
                _ => {}
            }
        }
        Some(())
    }
}

fn values_in(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(values_in).sum::<usize>(),
        Value::Object(values) => 1 + values.values().map(values_in).sum::<usize>(),
        _ => 1,
    }
}

/// Whether the argument is at fault, not a pattern that takes too long.
fn is_judgement(error: &ValidationError<'_>) -> bool {
    use ValidationErrorKind::{BacktrackLimitExceeded, Referencing, RegexEngineFailure};
    !matches!(error.kind(), BacktrackLimitExceeded { .. } | RegexEngineFailure { .. } | Referencing(_))
}

/// What is wrong, by argument. The values themselves are not shown.
fn problems(error: ValidationError<'_>) -> Vec<Problem> {
    let mut field = "arguments".to_owned();
    for segment in error.instance_path() {
        match segment {
            LocationSegment::Property(name) => field.extend([".", &name]),
            LocationSegment::Index(index) => field.push_str(&format!("[{index}]")),
        }
    }
    let below = |name: &str, detail: &str| Problem { field: format!("{field}.{name}"), detail: detail.to_owned() };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            vec![below(property.as_str().unwrap_or_default(), "is required")]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().take(PROBLEMS_MAX).map(|name| below(name, "is no argument that the tool takes")).collect()
        }
        _ => {
            let detail = error.masked_with("it").to_string().chars().take(DETAIL_CHARS_MAX).collect();
            vec![Problem { field, detail }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(schema: &Value, arguments: &Value) -> Vec<(String, String)> {
        let schema_of = ArgumentSchema::default();
        match schema_of.check(|| schema.clone(), arguments.as_object().unwrap()) {
            Ok(()) => Vec::new(),
            Err(error) => {
                assert_eq!(error.context().phase, Some(Phase::NotSent));
                let problems = error.context().problems.iter();
                problems.map(|problem| (problem.field.clone(), problem.detail.clone())).collect()
            }
        }
    }

    #[test]
    fn every_wrong_argument_is_named_and_no_value_is_shown() {
        let schema = json!({"type": "object", "required": ["text"], "additionalProperties": false, "properties": {
            "text": {"type": "string"}, "count": {"type": "integer", "minimum": 1},
            "to": {"type": "array", "items": {"type": "object", "properties": {"mail": {"type": "string"}}}}}});
        assert_eq!(told(&schema, &json!({"text": "a", "count": 2})), []);
        let wrong = json!({"count": "canary-7f3a", "to": [{}, {"mail": 5}], "extra": 1});
        let told = told(&schema, &wrong);
        let fields: Vec<_> = told.iter().map(|(field, _)| field.as_str()).collect();
        for field in ["arguments.text", "arguments.count", "arguments.to[1].mail", "arguments.extra"] {
            assert!(fields.contains(&field), "{field} is missing: {told:?}");
        }
        assert!(told.iter().all(|(_, detail)| !detail.contains("canary") && !detail.is_empty()), "{told:?}");
        assert!(told.contains(&("arguments.text".into(), "is required".into())));
    }

    #[test]
    fn references_within_the_schema_are_followed() {
        let schema = json!({"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}, "v": {"type": "integer"}}}},
            "$ref": "#/$defs/n"});
        assert_eq!(told(&schema, &json!({"next": {"next": {"v": 1}}})), []);
        assert_eq!(told(&schema, &json!({"next": {"next": {"v": "x"}}}))[0].0, "arguments.next.next.v");
    }

    #[test]
    fn what_cannot_be_judged_is_left_to_the_server() {
        let mut doubling = json!({"type": "string"});
        for _ in 0..40 {
            doubling = json!({"allOf": [{"$ref": "#/$defs/a"}], "anyOf": [doubling]});
        }
        let hostile = [
            json!({"$ref": "https://elsewhere.example/schema.json"}),
            json!({"$ref": "#/$defs/missing"}),
            json!({"$ref": "#"}),
            json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
            json!({"type": 5}),
            json!({"properties": {"text": {"pattern": "(unclosed"}}}),
            json!({"properties": []}),
            doubling,
        ];
        for schema in hostile {
            assert_eq!(told(&schema, &json!({"text": 5})), [], "{schema:.100}");
        }
    }

    #[test]
    fn a_schema_that_multiplies_is_not_followed() {
        let mut levels = Map::new();
        for level in 0..60 {
            let next = json!({"$ref": format!("#/$defs/l{}", level + 1)});
            levels.insert(format!("l{level}"), json!({"allOf": [next, next]}));
        }
        levels.insert("l60".into(), json!({"type": "string"}));
        let flat = json!({"$defs": levels, "$ref": "#/$defs/l0"});
        assert_eq!(told(&flat, &json!({})), []);

        let tree = json!({"$defs": {"t": {"anyOf": [{"properties": {"a": {"$ref": "#/$defs/t"}}},
            {"properties": {"a": {"$ref": "#/$defs/t"}, "b": {"type": "string"}}}]}}, "$ref": "#/$defs/t"});
        let deep = (0..60).fold(json!({"b": 1}), |inner, _| json!({"a": inner}));
        assert_eq!(told(&tree, &deep), []);
    }

    #[test]
    fn a_pattern_that_backtracks_forever_is_given_up() {
        let schema = json!({"properties": {"text": {"type": "string", "pattern": "^(a|a|aa)+(?=b)\\1$"}}});
        assert_eq!(told(&schema, &json!({"text": "a".repeat(5000)})), []);
    }
}
