//! What an import would change, for a dry run: a pure comparison of records in
//! which a changed secret shows as changed and never by its value.

use std::collections::BTreeMap;
use std::fmt;

use machina_core::{Endpoint, Instance, Sensitive, SensitiveMap, ServiceName, ServiceSpec};
use serde::Serialize;
use serde_json::Value;

use super::note::{element, field};

/// What would become of one service.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Difference {
    /// There is no service of this name yet.
    Added {
        /// Its name.
        name: ServiceName,
    },
    /// It is there and would be another.
    Changed {
        /// Its name.
        name: ServiceName,
        /// What would change, in the order of the record.
        fields: Vec<FieldChange>,
        /// Where secrets stand that cannot be compared: of the old one only the
        /// mask is known. They may change as well.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        not_compared: Vec<String>,
    },
    /// It is there and would stay as it is.
    Unchanged {
        /// Its name.
        name: ServiceName,
        /// Where secrets stand that cannot be compared, as above: only they may change.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        not_compared: Vec<String>,
    },
}

impl Difference {
    /// The service concerned.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        match self {
            Self::Added { name } | Self::Changed { name, .. } | Self::Unchanged { name, .. } => name,
        }
    }

    /// Where secrets stand of which it cannot be said whether they change.
    #[must_use]
    pub fn not_compared(&self) -> &[String] {
        match self {
            Self::Added { .. } => &[],
            Self::Changed { not_compared, .. } | Self::Unchanged { not_compared, .. } => not_compared,
        }
    }
}

/// One field that would change. Secrets show as a mask.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Where in the record: a path such as `instances[0].stdio.args[1]`.
    pub field: String,
    /// What stands there; absent if nothing does.
    pub old: Option<Value>,
    /// What would stand there; absent if nothing would.
    pub new: Option<Value>,
    /// Whether one secret would take the place of another; `old` and `new` are
    /// then both masks.
    pub secret: bool,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "(absent)".to_owned(), Value::to_string);
        write!(f, "{}: {} → {}", self.field, shown(&self.old), shown(&self.new))?;
        if self.secret { f.write_str(" (another secret)") } else { Ok(()) }
    }
}

/// Compares each of `wanted` with the one of the same name in `current`. An
/// instance is compared with the one that it would replace: that with the same
/// endpoint, or else the next one left over. Services of `current` that are not
/// wanted are not mentioned, because an import removes nothing.
#[must_use]
pub fn diff(current: &[ServiceSpec], wanted: &[ServiceSpec]) -> Vec<Difference> {
    let current: BTreeMap<_, _> = current.iter().map(|spec| (&spec.name, spec)).collect();
    let compare = |spec: &ServiceSpec| {
        let name = spec.name.clone();
        let Some(old) = current.get(&name) else { return Difference::Added { name } };
        let Found { fields, not_compared } = changes(old, spec);
        if fields.is_empty() {
            Difference::Unchanged { name, not_compared }
        } else {
            Difference::Changed { name, fields, not_compared }
        }
    };
    wanted.iter().map(compare).collect()
}

/// What a comparison came to.
#[derive(Default)]
struct Found {
    fields: Vec<FieldChange>,
    not_compared: Vec<String>,
}

fn changes(old: &ServiceSpec, new: &ServiceSpec) -> Found {
    let mut found = Found::default();
    let (old_top, new_top) = (without_instances(old), without_instances(new));
    compare("", Some(&old_top), Some(&new_top), &mut found.fields);
    compare_map("env", &old.env, &new.env, &mut found);
    let mut left: Vec<Option<&Instance>> = old.instances.iter().map(Some).collect();
    let pairs = pair_up(&mut left, &new.instances);
    for (index, (old, new)) in pairs.into_iter().enumerate() {
        let path = element("instances", index);
        compare(&path, old.map(instance_json).as_ref(), Some(&instance_json(new)), &mut found.fields);
        if let Some(old) = old {
            compare_endpoint(&path, &old.endpoint, &new.endpoint, &mut found);
        }
    }
    for (index, gone) in left.into_iter().enumerate() {
        compare(&element("instances", index), gone.map(instance_json).as_ref(), None, &mut found.fields);
    }
    found
}

/// Each new instance with the old one whose place it takes, which is removed from
/// `left`: the one with the same endpoint, or that looks the same, or any.
fn pair_up<'a>(left: &mut [Option<&'a Instance>], new: &'a [Instance]) -> Vec<(Option<&'a Instance>, &'a Instance)> {
    let mut pairs: Vec<(Option<&Instance>, &Instance)> = new.iter().map(|new| (None, new)).collect();
    let same = |old: &Instance, new: &Instance| old.endpoint == new.endpoint;
    let alike = |old: &Instance, new: &Instance| instance_json(old) == instance_json(new);
    let any = |_: &Instance, _: &Instance| true;
    for fits in [&same as &dyn Fn(&Instance, &Instance) -> bool, &alike, &any] {
        for (old, new) in pairs.iter_mut().filter(|(old, _)| old.is_none()) {
            *old = left.iter_mut().find(|left| left.is_some_and(|left| fits(left, new))).and_then(Option::take);
        }
    }
    pairs
}

fn without_instances(spec: &ServiceSpec) -> Value {
    let mut spec = spec.clone();
    spec.instances.clear();
    json(&spec)
}

fn instance_json(instance: &Instance) -> Value {
    let mut value = json(instance);
    if let Some(object) = value.as_object_mut() {
        object.shift_remove("id");
    }
    value
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("a record has only text as keys")
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<FieldChange>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                compare(&field(path, key), old.get(key), new.get(key), found);
            }
        }
        (Some(Value::Object(gone)), None) if !path.ends_with(']') => {
            gone.iter().for_each(|(key, old)| compare(&field(path, key), Some(old), None, found));
        }
        (None, Some(Value::Object(added))) if !path.ends_with(']') => {
            added.iter().for_each(|(key, new)| compare(&field(path, key), None, Some(new), found));
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                compare(&element(path, index), Some(old), Some(new), found);
            }
        }
        _ => found.push(FieldChange { field: path.to_owned(), old: old.cloned(), new: new.cloned(), secret: false }),
    }
}

fn compare_endpoint(path: &str, old: &Endpoint, new: &Endpoint, found: &mut Found) {
    let kind = new.kind();
    match (old, new) {
        (Endpoint::Stdio(old), Endpoint::Stdio(new)) => {
            let path = field(path, kind);
            if old.args.len() == new.args.len() {
                for (index, (old, new)) in old.args.iter().zip(&new.args).enumerate() {
                    compare_secret(element(&field(&path, "args"), index), old, new, found);
                }
            }
            compare_map(&field(&path, "env"), &old.env, &new.env, found);
        }
        (Endpoint::Http(old), Endpoint::Http(new)) | (Endpoint::Sse(old), Endpoint::Sse(new)) => {
            let path = field(path, kind);
            compare_secret(field(&path, "url"), &old.url, &new.url, found);
            compare_map(&field(&path, "headers"), &old.headers, &new.headers, found);
        }
        (Endpoint::WebSocket(old), Endpoint::WebSocket(new)) => {
            compare_secret(field(&field(path, kind), "url"), &old.url, &new.url, found);
        }
        _ => {}
    }
}

fn compare_map(path: &str, old: &SensitiveMap, new: &SensitiveMap, found: &mut Found) {
    for (name, new) in new {
        if let Some(old) = old.get(name) {
            compare_secret(field(path, name), old, new, found);
        }
    }
}

/// Secrets look alike, so the comparison of what is shown has missed them. A
/// mask that is wanted means "as before"; one that stands there cannot be compared.
fn compare_secret(field: String, old: &Sensitive, new: &Sensitive, found: &mut Found) {
    if !new.is_secret() || new.is_mask() {
        return;
    }
    if old.is_mask() {
        found.not_compared.push(field);
    } else if old.is_secret() && old.expose() != new.expose() {
        let mask = Some(Value::from(Sensitive::MASK));
        found.fields.push(FieldChange { field, old: mask.clone(), new: mask, secret: true });
    }
}
