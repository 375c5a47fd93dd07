//! What stores are compared by: a SHA-256 over their records in canonical JSON
//! (RFC 8785). Revisions are not in it, because every store has its own. Times
//! are, to the millisecond, which is what every store keeps.

use std::collections::BTreeMap;

use machina_core::{Definitions, Entry, Error, Group, Image, InstanceId, Result, Service, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A hash of any number of records, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum([u8; 32]);

/// A [`Sum`] in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Summing(Sha256);

impl Sum {
    pub(super) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The sum of what this is the sum of, and of what `other` is.
    pub(super) fn add_sum(&mut self, other: &Self) {
        let both = Sha256::new().chain_update(self.0).chain_update(other.0);
        self.0 = both.finalize().into();
    }
}

impl Summing {
    /// Adds a record. Canonical JSON has no line breaks, so they end records.
    pub(super) fn add(&mut self, record: &Value) -> Result<()> {
        let mut bytes = canonical(record)?;
        if String::from_utf8_lossy(&bytes).contains(NUL) {
            bytes = canonical(&without_nul(record))?;
        }
        self.0.update(bytes);
        self.0.update(b"\n");
        Ok(())
    }

    pub(super) fn finish(self) -> Sum {
        Sum(self.0.finalize().into())
    }
}

/// PostgreSQL holds no text with NUL in it: it keeps U+FFFD in its place.
const NUL: &str = "\\u0000";

fn without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace('\0', "\u{fffd}").into(),
        Value::Array(values) => values.iter().map(without_nul).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), without_nul(value))).collect(),
        other => other.clone(),
    }
}

fn canonical(record: &Value) -> Result<Vec<u8>> {
    serde_json_canonicalizer::to_vec(record).map_err(no_json)
}

fn no_json(error: serde_json::Error) -> Error {
    Error::internal("a record has no JSON form").caused_by(error)
}

fn plain(record: &impl Serialize) -> Result<Value> {
    serde_json::to_value(record).map_err(no_json)
}

/// The sum of one record.
pub(super) fn of(record: &Value) -> Result<Sum> {
    let mut summing = Summing::default();
    summing.add(record)?;
    Ok(summing.finish())
}

fn milliseconds(at: Timestamp) -> i64 {
    at.as_millisecond()
}

pub(super) fn service(service: &Service) -> Result<Value> {
    Ok(json!({
        "id": service.id,
        "spec": plain(&service.spec)?,
        "secrets": service.spec.secrets(),
        "created_at": milliseconds(service.created_at),
        "updated_at": milliseconds(service.updated_at),
        "updated_by": service.updated_by,
    }))
}

pub(super) fn definitions(instance: InstanceId, definitions: &Definitions) -> Result<Value> {
    let mut record = plain(definitions)?;
    record["instance"] = plain(&instance)?;
    record["listed_at"] = milliseconds(definitions.listed_at).into();
    Ok(record)
}

pub(super) fn group(group: &Group) -> Result<Value> {
    Ok(json!({
        "spec": plain(group.spec())?,
        "created_at": milliseconds(group.created_at),
        "updated_at": milliseconds(group.updated_at),
        "updated_by": group.updated_by,
    }))
}

pub(super) fn entry(entry: &Entry) -> Result<Value> {
    let mut record = plain(entry)?;
    record["at"] = milliseconds(entry.at).into();
    if let machina_core::What::Rollup { since, .. } = &entry.what {
        record["since"] = milliseconds(*since).into();
    }
    Ok(record)
}

/// Whether these are the same entry, each as its store keeps it.
pub(super) fn is_same_entry(one: &Entry, other: &Entry) -> Result<bool> {
    Ok(milliseconds(one.at) == milliseconds(other.at) && of(&entry(one)?)? == of(&entry(other)?)?)
}

/// The sum of everything that was declared and published.
pub(super) fn of_image(image: &Image) -> Result<Sum> {
    let mut summing = Summing::default();
    let services: BTreeMap<_, _> = image.services.iter().map(|service| (service.id, service)).collect();
    for one in services.into_values() {
        summing.add(&service(one)?)?;
    }
    for (instance, published) in &image.definitions {
        summing.add(&definitions(*instance, published)?)?;
    }
    let groups: BTreeMap<_, _> = image.groups.iter().map(|group| (group.name(), group)).collect();
    for one in groups.into_values() {
        summing.add(&group(one)?)?;
    }
    Ok(summing.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_order_nor_nul_makes_a_difference_and_the_rest_does() {
        let sum = |json: Value| of(&json).unwrap();
        let one = sum(json!({"a": "x\0y", "b": [1, 2.50]}));
        assert_eq!(sum(json!({"b": [1.0, 2.5], "a": "x\u{fffd}y"})), one);
        for other in [json!({"a": "xy", "b": [1, 2.5]}), json!({"a": "x\u{fffd}y", "b": [2.5, 1]}), json!(null)] {
            assert_ne!(sum(other), one);
        }
    }

    #[test]
    fn records_are_kept_apart() {
        let sum = |records: &[Value]| {
            let mut summing = Summing::default();
            records.iter().for_each(|record| summing.add(record).unwrap());
            summing.finish()
        };
        assert_ne!(sum(&[json!(1), json!(2)]), sum(&[json!(12)]));
        assert_ne!(sum(&[json!(1), json!(2)]), sum(&[json!(2), json!(1)]));
        assert_eq!(sum(&[]).hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
