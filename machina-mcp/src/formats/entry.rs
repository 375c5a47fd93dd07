//! Reading one object of a file field by field, so that what is left at the end
//! is what nobody understood. A wrong type is an error note; the reader goes on.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::note::{Notes, element, field};
use super::placeholder::Placeholders;

pub(super) struct Entry<'a> {
    pub(super) path: String,
    fields: Map<String, Value>,
    placeholders: &'a Placeholders<'a>,
    pub(super) notes: &'a mut Notes,
}

impl<'a> Entry<'a> {
    pub(super) fn new(
        path: String,
        fields: Map<String, Value>,
        placeholders: &'a Placeholders<'a>,
        notes: &'a mut Notes,
    ) -> Self {
        Self { path, fields, placeholders, notes }
    }

    pub(super) fn at(&self, key: &str) -> String {
        field(&self.path, key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(|value| !value.is_null())
    }

    pub(super) fn peek(&self, key: &str) -> Option<&Value> {
        self.fields.get(key)
    }

    /// Takes a field out; `null` counts as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.shift_remove(key).filter(|value| !value.is_null())
    }

    /// A text as it stands.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => self.wrong(key, "text", &other),
        }
    }

    /// A text with its placeholders rewritten.
    pub(super) fn resolved(&mut self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        Some(self.rewrite(&self.at(key), &text))
    }

    pub(super) fn rewrite(&mut self, path: &str, text: &str) -> String {
        self.placeholders.rewrite(path, text, self.notes)
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong(key, "true or false", &other),
        }
    }

    /// A number that is not negative.
    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        let value = self.take(key)?;
        match value.as_f64().filter(|number| *number >= 0.0) {
            Some(number) => Some(number),
            None => self.wrong(key, "a number from 0", &value),
        }
    }

    pub(super) fn table(&mut self, key: &str) -> Option<Map<String, Value>> {
        match self.take(key)? {
            Value::Object(table) => Some(table),
            other => self.wrong(key, "an object", &other),
        }
    }

    pub(super) fn array(&mut self, key: &str) -> Option<Vec<Value>> {
        match self.take(key)? {
            Value::Array(items) => Some(items),
            other => self.wrong(key, "an array", &other),
        }
    }

    /// A list of texts as they stand.
    pub(super) fn list(&mut self, key: &str) -> Vec<String> {
        let items = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.wrong::<()>(key, "an array of texts, such as [\"-y\", \"package\"]", &other);
                return Vec::new();
            }
        };
        let path = self.at(key);
        let texts = items.into_iter().enumerate();
        texts.filter_map(|(index, item)| self.scalar(&element(&path, index), item)).collect()
    }

    /// A list of texts with their placeholders rewritten.
    pub(super) fn resolved_list(&mut self, key: &str) -> Vec<String> {
        let path = self.at(key);
        let texts = self.list(key).into_iter().enumerate();
        texts.map(|(index, text)| self.placeholders.rewrite(&element(&path, index), &text, self.notes)).collect()
    }

    /// Names with texts whose placeholders are rewritten.
    pub(super) fn resolved_table(&mut self, key: &str) -> BTreeMap<String, String> {
        let path = self.at(key);
        let mut texts = BTreeMap::new();
        for (name, value) in self.table(key).unwrap_or_default() {
            let path = field(&path, &name);
            if value.is_null() {
                self.notes.warn(path, "is null, which is not imported: it is not set");
            } else if let Some(text) = self.scalar(&path, value) {
                texts.insert(name, self.placeholders.rewrite(&path, &text, self.notes));
            }
        }
        texts
    }

    /// The object in `key`, to be read in the same way.
    pub(super) fn nested(&mut self, key: &str) -> Option<Entry<'_>> {
        let fields = self.table(key)?;
        Some(Entry::new(self.at(key), fields, self.placeholders, self.notes))
    }

    /// Lets the fields of `other` take the place of those here; `env` is merged.
    pub(super) fn overlay(&mut self, other: Map<String, Value>) {
        for (key, value) in other {
            match (self.fields.get_mut(&key), value) {
                (Some(Value::Object(mine)), Value::Object(theirs)) => mine.extend(theirs),
                (_, value) => {
                    self.fields.insert(key, value);
                }
            }
        }
    }

    /// Reads each object of the list in `key`, to its last field.
    pub(super) fn each(&mut self, key: &str, mut read: impl FnMut(&mut Entry<'_>)) {
        let path = self.at(key);
        for (index, item) in self.array(key).unwrap_or_default().into_iter().enumerate() {
            let path = element(&path, index);
            match item {
                Value::Object(fields) => {
                    let mut entry = self.inner(path, fields);
                    read(&mut entry);
                    entry.finish();
                }
                other => self.notes.error(path, format!("is {}, must be an object", kind(&other))),
            }
        }
    }

    /// An object that was found at `path` within this one, to be read in the same way.
    pub(super) fn inner(&mut self, path: String, fields: Map<String, Value>) -> Entry<'_> {
        Entry::new(path, fields, self.placeholders, self.notes)
    }

    /// Keeps those of `keys` that are present in `place`, as the host wrote them.
    pub(super) fn set_aside(&mut self, keys: &[&str], section: &str, place: &mut Map<String, Value>) {
        for key in keys {
            let Some(value) = self.take(key) else { continue };
            let path = self.at(key);
            if !harmless(&value) {
                self.notes.warn(path, "is not imported: its form is not known");
                continue;
            }
            self.notes.info(path, format!("has no effect here; kept in metadata.{section}"));
            let kept = place.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(kept) = kept {
                kept.insert((*key).to_owned(), value);
            }
        }
    }

    /// Says of those of `keys` that are present why they are not imported.
    pub(super) fn pass_over(&mut self, keys: &[&str], why: &str) {
        for key in keys {
            if self.take(key).is_some() {
                self.notes.warn(self.at(key), format!("not imported: {why}"));
            }
        }
    }

    /// Says of those of `keys` that are present that nothing is lost without them.
    pub(super) fn skip(&mut self, keys: &[&str], why: &str) {
        for key in keys {
            if self.take(key).is_some() {
                self.notes.info(self.at(key), format!("not imported: {why}"));
            }
        }
    }

    /// Every key that nobody took.
    pub(super) fn finish(self) {
        for key in self.fields.keys().filter(|key| !key.starts_with("//")) {
            self.notes.warn(field(&self.path, key), "unknown key, not imported");
        }
    }

    fn scalar(&mut self, path: &str, value: Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text),
            Value::Number(_) | Value::Bool(_) => {
                self.notes.info(path, format!("is {}; read as text", kind(&value)));
                Some(value.to_string())
            }
            other => {
                self.notes.error(path, format!("is {}, must be text", kind(&other)));
                None
            }
        }
    }

    fn wrong<T>(&mut self, key: &str, wanted: &str, value: &Value) -> Option<T> {
        self.notes.error(self.at(key), format!("is {}, must be {wanted}", kind(value)));
        None
    }
}

/// Whether `value` can hold no secret: a switch, a number, a word or a list of them.
fn harmless(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| !item.is_array() && harmless(item)),
        Value::Object(_) => false,
        _ => true,
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
