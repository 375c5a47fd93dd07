//! What a copy remembers about where it came from, in its own metadata: so that
//! the next run knows what is its to change, and what was edited here meanwhile.

use machina_core::{Instance, ServiceSpec, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The key in the metadata of a service.
pub(super) const KEY: &str = "dev.machina/sync";

/// Where a service came from, and what it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The registry.
    pub(super) source: String,
    /// The name there.
    pub(super) server: String,
    /// When it was last changed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) updated_at: Option<Timestamp>,
    /// The digest of the record as a reader sees it.
    record: String,
    /// The digest of each instance, with the environment that its process gets.
    pub(super) instances: Vec<String>,
}

impl Mark {
    /// The mark of a copy that is `spec` there.
    pub(super) fn new(source: &str, server: &str, updated_at: Option<Timestamp>, spec: &ServiceSpec) -> Self {
        Self {
            source: source.to_owned(),
            server: server.to_owned(),
            updated_at,
            record: digest_of_record(spec),
            instances: spec.instances.iter().map(|instance| digest_of_instance(spec, instance)).collect(),
        }
    }

    /// The mark that a service has, if it is a copy.
    pub(super) fn of(spec: &ServiceSpec) -> Option<Self> {
        serde_json::from_value(spec.metadata.get(KEY)?.clone()).ok()
    }

    /// Whether a service still is what it was when it got this mark. What an
    /// operator says about its use does not count, and neither does a secret that
    /// took the place of another one.
    pub(super) fn is_true_of(&self, spec: &ServiceSpec) -> bool {
        self.record == digest_of_record(spec)
    }

    /// Whether there is nothing new.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        self.record == other.record && self.instances == other.instances
    }

    pub(super) fn put_on(&self, spec: &mut ServiceSpec) {
        spec.metadata.insert(KEY.to_owned(), serde_json::to_value(self).unwrap_or_default());
    }
}

fn digest_of_record(spec: &ServiceSpec) -> String {
    let mut record = serde_json::to_value(spec).unwrap_or_default();
    let said_here = ["admin_state", "admin_reason"];
    if let Some(fields) = record.as_object_mut() {
        fields.retain(|name, _| !said_here.contains(&name.as_str()));
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            metadata.shift_remove(KEY);
        }
        fields.retain(|name, value| name != "metadata" || value.as_object().is_some_and(|map| !map.is_empty()));
    }
    for instance in record.get_mut("instances").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(fields) = instance.as_object_mut() {
            fields.retain(|name, _| name != "id" && !said_here.contains(&name.as_str()));
        }
    }
    digest(&record)
}

/// What an instance does, secrets included: they are the other registry's.
fn digest_of_instance(spec: &ServiceSpec, instance: &Instance) -> String {
    let mut alone = spec.clone();
    alone.instances = vec![instance.clone()];
    let exposed = alone.exposed();
    let kind = instance.endpoint.kind();
    digest(&serde_json::json!([kind, exposed["instances"][0][kind], exposed["env"]]))
}

fn digest(value: &Value) -> String {
    let text = serde_json_canonicalizer::to_vec(value).unwrap_or_default();
    Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
