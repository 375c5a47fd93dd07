//! Machina's own form: a service record, an array of them, or `services`. It is
//! the form of the API, so unknown fields are errors here and not remarks.

use machina_core::ServiceSpec;
use serde_json::Value;

use super::entry::kind;
use super::importer::Importer;
use super::note::element;

pub(super) fn read(root: Value, importer: &mut Importer<'_>) {
    match root {
        Value::Array(items) => services("", items, importer),
        Value::Object(mut root) => match root.shift_remove("services") {
            Some(Value::Array(items)) => {
                services("services", items, importer);
                importer.foreign("", &root);
            }
            _ => service(String::new(), Value::Object(root), importer),
        },
        _ => {}
    }
}

fn services(path: &str, items: Vec<Value>, importer: &mut Importer<'_>) {
    for (index, item) in items.into_iter().enumerate() {
        service(element(path, index), item, importer);
    }
}

fn service(path: String, value: Value, importer: &mut Importer<'_>) {
    if !value.is_object() {
        return importer.notes.error(path, format!("is {}, must be a service record", kind(&value)));
    }
    match ServiceSpec::from_value(value) {
        Ok(spec) => importer.add(path, spec),
        Err(error) => {
            for problem in &error.context().problems {
                let place = if problem.field == "body" { path.clone() } else { join(&path, &problem.field) };
                importer.notes.error(place, &problem.detail);
            }
        }
    }
}

fn join(path: &str, dotted: &str) -> String {
    if path.is_empty() { dotted.to_owned() } else { format!("{path}.{dotted}") }
}
