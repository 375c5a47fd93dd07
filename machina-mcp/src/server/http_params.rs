//! `Mcp-Param-*`: arguments that a host of the stateless era repeats in headers,
//! because the tool marks them so (`x-mcp-header`). Refuses a call whose headers
//! and body say different things: whoever routes by the headers would be deceived.

use http::HeaderMap;
use http::header::HeaderName;
use serde_json::Value;

use super::http_headers::{decoded, missing, must_be, single};
use super::rpc::{Fault, HEADER_MISMATCH, Object};
use crate::client::param_headers::ParamHeader;

/// The arguments that the headers of a request repeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repeated(HeaderMap);

impl Repeated {
    /// Those among `headers`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let repeating = headers.iter().filter(|(name, _)| name.as_str().starts_with("mcp-param-"));
        let mut repeated = HeaderMap::new();
        repeating.for_each(|(name, value)| _ = repeated.append(name, value.clone()));
        Self(repeated)
    }

    /// Refuses `arguments` that those which the tool marks contradict.
    pub(super) fn check(&self, marked: &[ParamHeader], arguments: &Object) -> Result<(), Fault> {
        marked.iter().try_for_each(|mark| self.check_one(mark.header(), mark.argument(arguments)))
    }

    fn check_one(&self, name: &str, argument: Option<&Value>) -> Result<(), Fault> {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            // No host can send it.
            return Ok(());
        }
        let wrong = |why: &str| Err(Fault::malformed(HEADER_MISMATCH, format!("{name} {why}")));
        let text = |argument: &Value| argument.as_str().map_or_else(|| argument.to_string(), str::to_owned);
        match (single(&self.0, name)?, argument) {
            (None, None) => Ok(()),
            (None, Some(argument)) => Err(missing(name, &text(argument))),
            (Some(_), None) => wrong("is there, and the body has no such argument"),
            (Some(raw), Some(argument)) => match decoded(raw) {
                None => wrong("is not valid base64"),
                Some(said) if is_number(argument, &said) => Ok(()),
                Some(said) => must_be(name, &said, &text(argument)),
            },
        }
    }
}

/// Whether `said` is the same number, however it is written.
fn is_number(argument: &Value, said: &str) -> bool {
    argument.as_i64().map_or_else(
        || argument.as_f64().is_some_and(|number| said.parse() == Ok(number)),
        |number| said.parse() == Ok(number),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::param_headers::of_schema;
    use serde_json::json;

    fn code(headers: &[(&'static str, &'static str)], arguments: Value) -> Option<i64> {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"properties": {"n": {"type": "number", "x-mcp-header": "N"}}},
            "odd": {"type": "string", "x-mcp-header": "no header"},
        }});
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            sent.append(*name, value.parse().unwrap());
        }
        let arguments = super::super::rpc::object(arguments);
        Repeated::of(&sent).check(&of_schema(&schema), &arguments).err().map(|fault| {
            assert!(fault.malformed && fault.message.starts_with("Mcp-Param-"), "{fault:?}");
            fault.code
        })
    }

    #[test]
    fn headers_that_say_what_the_body_says_pass() {
        for (headers, arguments) in [
            (&[][..], json!({})),
            (&[("mcp-other", "x")], json!({"region": null, "odd": "x", "deep": {"n": {}}})),
            (&[("mcp-param-region", "eu")], json!({"region": "eu"})),
            (&[("mcp-param-region", "=?base64?Z3LDvG4=?=")], json!({"region": "grün"})),
            (&[("mcp-param-n", "7")], json!({"deep": {"n": 7}})),
            (&[("mcp-param-n", "0.50")], json!({"deep": {"n": 0.5}})),
            (&[("mcp-param-n", "true")], json!({"deep": {"n": true}})),
        ] {
            assert_eq!(code(headers, arguments.clone()), None, "{headers:?} {arguments}");
        }
    }

    #[test]
    fn headers_that_say_something_else_are_refused() {
        for (headers, arguments) in [
            (&[][..], json!({"region": "eu"})),
            (&[("mcp-param-region", "us")], json!({"region": "eu"})),
            (&[("mcp-param-region", "eu")], json!({})),
            (&[("mcp-param-region", "eu")], json!({"region": ["eu"]})),
            (&[("mcp-param-region", "eu"), ("mcp-param-region", "eu")], json!({"region": "eu"})),
            (&[("mcp-param-region", "=?base64?ZXU?=")], json!({"region": "eu"})),
            (&[("mcp-param-region", "=?base64?Z!U=?=")], json!({"region": "eu"})),
            (&[("mcp-param-n", "8")], json!({"deep": {"n": 7}})),
            (&[("mcp-param-n", "seven")], json!({"deep": {"n": 7}})),
        ] {
            assert_eq!(code(headers, arguments.clone()), Some(HEADER_MISMATCH), "{headers:?} {arguments}");
        }
    }
}
