//! JSON as it comes from outside, read strictly and in one pass: a key that is
//! there twice would be read differently by different readers, and what is
//! nested too deep overruns the stack of whoever walks through it. Refuses both.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, de};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// How deep arrays and objects may be nested in one another.
pub const DEPTH_MAX: usize = 64;

/// The one value in `bytes`.
///
/// # Errors
/// What is wrong and where, if `bytes` is not JSON, an object has a key twice,
/// or arrays and objects are nested more than [`DEPTH_MAX`] deep.
pub fn strict_from_slice(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: DEPTH_MAX }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Reads a value that may be nested `depth` deep.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom(format_args!("arrays and objects are nested more than {DEPTH_MAX} deep"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            match object.entry(key) {
                Entry::Vacant(place) => drop(place.insert(members.next_value_seed(inner)?)),
                Entry::Occupied(place) => {
                    let key: String = place.key().chars().take(80).collect();
                    return Err(A::Error::custom(format_args!("the key `{}` is there twice", key.escape_debug())));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        strict_from_slice(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_serde_json_reads_and_keeps_the_order_of_keys() {
        for text in [
            "null",
            r#"{"z":1,"a":[true,false,null,{"a":{}}],"m":-7,"f":1.5e3,"big":18446744073709551615,"s":"ä\n\"\u0000"}"#,
            "[[],{},\"\"]",
            " 1e400 ".trim(),
            "-0.0",
        ] {
            let (ours, theirs) = (strict_from_slice(text.as_bytes()), serde_json::from_str::<Value>(text));
            match theirs {
                Ok(value) => assert_eq!(ours.unwrap().to_string(), value.to_string(), "{text}"),
                Err(error) => assert_eq!(ours.unwrap_err().to_string(), error.to_string(), "{text}"),
            }
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_wherever_it_is() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"\u0061":3}}]"#, r#"{"x":{"a":null,"a":[]}}"#] {
            assert!(refused(text).contains("the key `a` is there twice at line 1"), "{text}");
        }
        assert!(strict_from_slice(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
        let long = format!(r#"{{"{0}":1,"{0}":2}}"#, "k".repeat(10_000));
        assert!(refused(&long).len() < 200);
    }

    #[test]
    fn depth_has_an_end() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(strict_from_slice(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(refused(&nested(DEPTH_MAX + 1)).contains("more than 64 deep"));
        let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert!(strict_from_slice(objects(DEPTH_MAX).as_bytes()).is_ok());
        assert!(refused(&objects(DEPTH_MAX + 1)).contains("more than 64 deep"));
        assert!(refused(&"[".repeat(1_000_000)).contains("deep"));
    }

    #[test]
    fn what_is_no_json_or_has_more_after_it_is_refused() {
        for text in ["", "{", "{} {}", "nul", r#"{"a" 1}"#, "\"\u{1}\"", "[1,]"] {
            assert!(strict_from_slice(text.as_bytes()).is_err(), "{text}");
        }
        assert!(strict_from_slice(b"\"\xff\"").is_err());
    }
}
