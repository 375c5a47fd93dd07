//! Where in a body that cannot be accepted the reason lies: asked only after the
//! strict reader has refused it, so that what is accepted is read once.

use std::collections::HashSet;
use std::fmt;

use machina_core::json::DEPTH_MAX;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, de};

/// How long a name in a path is at most.
const NAME_CHARS_MAX: usize = 80;

/// The field that is there twice, or that is nested too deep; `None` when what is
/// wrong is something else.
pub(super) fn place_of_refusal(bytes: &[u8]) -> Option<String> {
    let mut found = Found::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // Its error is that of the strict reader again.
    drop(Walk { found: &mut found }.deserialize(&mut reader));
    found.refused.then_some(found.path).map(|path| if path.is_empty() { "body".to_owned() } else { path })
}

#[derive(Default)]
struct Found {
    /// The way to where the walk is, or has ended.
    path: String,
    depth: usize,
    refused: bool,
}

struct Walk<'a> {
    found: &'a mut Found,
}

impl Walk<'_> {
    fn refuse<E: de::Error>(self) -> E {
        self.found.refused = true;
        E::custom("refused")
    }

    /// Goes on below `step`, and comes back.
    fn below<E>(&mut self, step: &str, go: impl FnOnce(Walk<'_>) -> Result<(), E>) -> Result<(), E> {
        let length = self.found.path.len();
        self.found.path.push_str(step);
        go(Walk { found: &mut *self.found })?;
        self.found.path.truncate(length);
        Ok(())
    }

    fn step_to(&self, key: &str) -> String {
        let name: String = key.chars().take(NAME_CHARS_MAX).collect();
        if self.found.path.is_empty() { name } else { format!(".{name}") }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        if self.found.depth == DEPTH_MAX {
            return Err(self.refuse());
        }
        self.found.depth += 1;
        for index in 0.. {
            let mut more = true;
            self.below(&format!("[{index}]"), |walk| {
                more = items.next_element_seed(walk)?.is_some();
                Ok::<_, A::Error>(())
            })?;
            if !more {
                break;
            }
        }
        self.found.depth -= 1;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        if self.found.depth == DEPTH_MAX {
            return Err(self.refuse());
        }
        self.found.depth += 1;
        let mut keys = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            let step = self.step_to(&key);
            let again = !keys.insert(key);
            self.below(&step, |walk| if again { Err(walk.refuse()) } else { members.next_value_seed(walk) })?;
        }
        self.found.depth -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_named_as_fields_are() {
        let deep = |depth: usize| format!("{}1{}", r#"{"a":["#.repeat(depth), "]}".repeat(depth));
        let cases = [
            (r#"{"a":1,"a":2}"#.to_owned(), Some("a".to_owned())),
            (r#"{"b":[{"c":1},{"c":1,"d":{"e":[],"e":1}}]}"#.to_owned(), Some("b[1].d.e".to_owned())),
            (deep(33), Some(format!("a[0]{}", ".a[0]".repeat(31)))),
            ("[".repeat(100_000), Some("[0]".repeat(64))),
            (r#"{"a":1,}"#.to_owned(), None),
            (r#"{"a":{"a":1}}"#.to_owned(), None),
        ];
        for (text, place) in cases {
            assert!(place.is_none() || machina_core::json::strict_from_slice(text.as_bytes()).is_err(), "{place:?}");
            assert_eq!(place_of_refusal(text.as_bytes()), place);
        }
    }
}
