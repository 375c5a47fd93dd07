//! Reads the arguments of a tool of Machina's own, and names every one that is
//! wrong at once: a model reads that and sends better ones.

use machina_core::{Error, Problem, Result};
use serde_json::Value;

use super::rpc::{Object, shown};

/// The arguments of one call, taken out one by one.
#[derive(Debug)]
pub(crate) struct Arguments {
    left: Object,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Arguments {
    /// Those of `arguments`.
    pub(crate) fn new(arguments: Object) -> Self {
        Self { left: arguments, known: Vec::new(), problems: Vec::new() }
    }

    /// A text that may be absent.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => self.wrong(name, format!("must be a string, is {}", kind_of(&other))),
        }
    }

    /// A text that must be there; empty if it is not, which [`Arguments::finish`] tells.
    pub(crate) fn required(&mut self, name: &'static str) -> String {
        let missing = self.left.get(name).is_none_or(Value::is_null);
        let text = self.text(name);
        if missing {
            self.wrong::<()>(name, "is missing".to_owned());
        } else if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            self.wrong::<()>(name, "must not be empty".to_owned());
        }
        text.unwrap_or_default()
    }

    /// A number between 1 and `most` that may be absent.
    pub(crate) fn count(&mut self, name: &'static str, most: u32) -> Option<u32> {
        let value = self.take(name)?;
        // Some hosts know floating-point numbers only.
        let whole = |number: f64| (number.fract() == 0.0 && number >= 0.0).then(|| format!("{number}"));
        let number = value.as_u64().or_else(|| value.as_f64().and_then(whole)?.parse().ok());
        match number.and_then(|number| u32::try_from(number).ok()).filter(|number| (1..=most).contains(number)) {
            Some(number) => Some(number),
            None => {
                self.wrong(name, format!("must be a whole number from 1 to {most}, is {}", shown(&value.to_string())))
            }
        }
    }

    /// An object that may be absent; empty then.
    pub(crate) fn object(&mut self, name: &'static str) -> Object {
        match self.take(name) {
            None => Object::new(),
            Some(Value::Object(object)) => object,
            Some(other) => {
                let problem = format!("must be a JSON object such as {{\"key\": \"value\"}}, is {}", kind_of(&other));
                self.wrong(name, problem).unwrap_or_default()
            }
        }
    }

    /// Parses a text; a failure is a problem of the argument `name`.
    pub(crate) fn parse<T>(&mut self, name: &'static str, text: &str, parse: impl Fn(&str) -> Result<T>) -> Option<T> {
        if self.problems.iter().any(|problem| problem.field == name) {
            return None;
        }
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let detail = error.context().problems.first().map(|problem| problem.detail.clone());
                self.wrong(name, detail.unwrap_or_else(|| error.message().to_owned()))
            }
        }
    }

    /// Everything was read.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid), naming every argument that
    /// is wrong, missing or unknown.
    pub(crate) fn finish(mut self) -> Result<()> {
        for name in self.left.keys() {
            let detail = format!("is not known; the arguments are {}", self.known.join(", "));
            self.problems.push(Problem { field: shown(name), detail });
        }
        if self.problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(self.problems)) }
    }

    /// Hosts send `null` for what they leave out.
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.shift_remove(name).filter(|value| !value.is_null())
    }

    fn wrong<T>(&mut self, name: &'static str, detail: String) -> Option<T> {
        self.problems.push(Problem { field: name.to_owned(), detail });
        None
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::rpc::object;
    use machina_core::ServiceName;
    use serde_json::json;

    fn problems(arguments: Arguments) -> Vec<(String, String)> {
        let error = arguments.finish().unwrap_err();
        error.context().problems.iter().map(|problem| (problem.field.clone(), problem.detail.clone())).collect()
    }

    #[test]
    fn reads_what_is_right() {
        let mut arguments = Arguments::new(object(json!({"a": "x", "n": 5.0, "o": {"k": 1}, "absent": null})));
        assert_eq!(arguments.required("a"), "x");
        assert_eq!(arguments.count("n", 10), Some(5));
        assert_eq!(arguments.object("o"), object(json!({"k": 1})));
        assert_eq!(arguments.text("absent"), None);
        arguments.finish().unwrap();
    }

    #[test]
    fn names_every_wrong_argument_at_once() {
        let mut arguments = Arguments::new(object(json!({"a": 1, "n": 0, "o": "{}", "s": "A B", "colour": "blue"})));
        arguments.required("a");
        arguments.required("gone");
        arguments.count("n", 10);
        arguments.object("o");
        let text = arguments.required("s");
        arguments.parse("s", &text, ServiceName::new);
        let got = problems(arguments);
        let fields: Vec<&str> = got.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["a", "gone", "n", "o", "s", "colour"]);
        assert_eq!(got[0].1, "must be a string, is a number");
        assert_eq!(got[2].1, "must be a whole number from 1 to 10, is 0");
        assert!(got[3].1.ends_with("is a string"));
        assert!(got[4].1.contains("is not a service name"));
        assert_eq!(got[5].1, "is not known; the arguments are a, gone, n, o, s");
    }

    #[test]
    fn a_number_out_of_every_range_is_wrong() {
        for value in [json!(-1), json!(1.5), json!(11), json!(1e30), json!("3")] {
            let mut arguments = Arguments::new(object(json!({"n": value})));
            assert_eq!(arguments.count("n", 10), None);
            assert_eq!(problems(arguments)[0].0, "n");
        }
    }
}
