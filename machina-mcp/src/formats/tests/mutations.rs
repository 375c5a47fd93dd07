//! Every sample cut off at every place, and with every value replaced by one of
//! another type: nothing panics, and nothing that is said holds a secret.

use serde_json::{Value, json};

use super::SECRET;
use crate::formats::{Client, ImportOptions, export, import, text};

const SAMPLES: [&str; 14] = [
    include_str!("../samples/claude_desktop.json"),
    include_str!("../samples/claude_code.json"),
    include_str!("../samples/cursor.json"),
    include_str!("../samples/gemini.json"),
    include_str!("../samples/windsurf.json"),
    include_str!("../samples/vscode.json"),
    include_str!("../samples/zed.json"),
    include_str!("../samples/codex.toml"),
    include_str!("../samples/opencode.json"),
    include_str!("../samples/opencode_2.json"),
    include_str!("../samples/server.json"),
    include_str!("../samples/registry_list.json"),
    include_str!("../samples/manifest.json"),
    include_str!("../samples/machina.json"),
];

fn check(text: &str) {
    let said = match import(text, &ImportOptions::default()) {
        Ok(import) => {
            import.services.iter().for_each(|spec| spec.validate().unwrap());
            export(&import.services, Client::Cursor).unwrap();
            import.notes.iter().map(ToString::to_string).collect()
        }
        Err(error) => format!("{error:?}"),
    };
    assert!(!said.contains(SECRET), "{said}\nof {text}");
}

#[test]
fn a_text_that_is_cut_off() {
    for sample in SAMPLES {
        for (at, _) in sample.char_indices() {
            check(&sample[..at]);
        }
    }
}

#[test]
fn a_value_of_another_type() {
    let others = [json!(null), json!(true), json!(-1.5), json!("${input:x} $A {b} ${"), json!([[]]), json!({"a": {}})];
    for sample in SAMPLES {
        let root = text::parse(sample).unwrap().root;
        for pointer in pointers(&root) {
            for other in &others {
                let mut changed = root.clone();
                *changed.pointer_mut(&pointer).unwrap() = other.clone();
                check(&changed.to_string());
            }
        }
    }
}

/// Where every value of `root` is.
fn pointers(root: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![(String::new(), root)];
    while let Some((pointer, value)) = left.pop() {
        match value {
            Value::Object(fields) => left.extend(
                fields
                    .iter()
                    .map(|(key, value)| (format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")), value)),
            ),
            Value::Array(items) => {
                left.extend(items.iter().enumerate().map(|(index, value)| (format!("{pointer}/{index}"), value)));
            }
            _ => {}
        }
        found.push(pointer);
    }
    found
}
