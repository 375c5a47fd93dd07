//! A configuration file: TOML, or JSON for a name that ends in `.json`. Paths in
//! it are relative to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use machina_core::{Error, Result};
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::keys;
use super::layers::{Layers, Source};
use crate::paths::{beside, store_beside};

/// Reads the file at `path` into `layers`.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) when it cannot be read, or is
/// neither TOML nor JSON.
pub(super) fn read(path: &Path, layers: &mut Layers) -> Result<()> {
    let wrong = |detail: String| Error::invalid_field("--config", format!("{}: {detail}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let (tree, lines) = if json {
        let tree: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| wrong(format!("is not a JSON object: {error}")))?;
        (tree, BTreeMap::new())
    } else {
        let tree =
            toml::from_str(&text).map_err(|error| wrong(format!("is not TOML: {}", error.to_string().trim())))?;
        (tree, lines_of(&text))
    };
    let directory = path.parent().unwrap_or(Path::new(""));
    for (path_in_file, value) in flat(tree) {
        let line = lines.get(&path_in_file).copied();
        let value = relative_to(directory, &path_in_file, value);
        layers.set(&path_in_file, value, Source::File { path: path.to_owned(), line });
    }
    Ok(())
}

/// Paths in a file are meant relative to it.
fn relative_to(directory: &Path, path: &str, mut value: Value) -> Value {
    match (path, &mut value) {
        ("store.url", Value::String(url)) => *url = store_beside(directory, url),
        ("import", Value::Array(files)) => {
            for file in files {
                if let Value::String(text) = file {
                    *text = beside(directory, &PathBuf::from(&*text)).to_string_lossy().into_owned();
                }
            }
        }
        ("alerts.channels", Value::Array(channels)) => {
            let targets = channels.iter_mut().filter_map(Value::as_object_mut).flat_map(|channel| channel.values_mut());
            for target in targets {
                if let Some(Value::String(text)) = target.get_mut("ca_file") {
                    *text = beside(directory, &PathBuf::from(&*text)).to_string_lossy().into_owned();
                }
            }
        }
        _ => {}
    }
    value
}

/// Every value with its key: tables are gone into until a key begins.
fn flat(tree: Map<String, Value>) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (section, value) in tree {
        match value {
            Value::Object(table) if keys::is_section(&section) => {
                found.extend(table.into_iter().map(|(name, value)| (format!("{section}.{name}"), value)));
            }
            value => found.push((section, value)),
        }
    }
    found
}

/// The line of every key.
fn lines_of(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    let Ok(document) = DeTable::parse(text) else { return lines };
    let line = |offset: usize| text[..offset].matches('\n').count() + 1;
    for (name, value) in document.get_ref() {
        lines.insert(name.get_ref().to_string(), line(name.span().start));
        if let DeValue::Table(table) = value.get_ref() {
            let below = table.keys().map(|key| (format!("{}.{}", name.get_ref(), key.get_ref()), key.span().start));
            lines.extend(below.map(|(path, offset)| (path, line(offset))));
        }
    }
    lines
}
