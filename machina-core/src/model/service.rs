//! The service: a named MCP server as its users know it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::instance::{AdminState, Instance, REASON_MAX};
use super::name::{Revision, ServiceId, ServiceName, Tag};
use super::policy::{HealthPolicy, RoutingPolicy, SessionPolicy, length};
use super::sensitive::{Sensitive, SensitiveMap};
use crate::error::{Error, Problem, Result};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident ($rename:literal) { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = $rename)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// How a service is built.
    BuildType ("snake_case") {
        /// With FastMCP.
        Fastmcp = "fastmcp",
        /// With FastAPI.
        Fastapi = "fastapi",
        /// By a third party.
        External = "external",
        /// Converted from an HTTP API.
        Conversion = "conversion",
        /// As a container.
        Docker = "docker",
        /// In some other way, or it is not known.
        #[default]
        Other = "other",
    }
}
words! {
    /// Where a service comes from.
    Origin ("snake_case") {
        /// Its vendor publishes it.
        Official = "official",
        /// Someone else publishes it.
        #[default]
        Community = "community",
        /// The organisation itself.
        Internal = "internal",
        /// It only pretends, for tests.
        Mock = "mock",
    }
}
words! {
    /// How urgently a service is to be built and repaired.
    BuildPriority ("UPPERCASE") {
        /// First.
        High = "HIGH",
        /// In its turn.
        #[default]
        Medium = "MEDIUM",
        /// Last.
        Low = "LOW",
    }
}
words! {
    /// Who may see and manage a service, from the most to the least privileged.
    AccessLevel ("snake_case") {
        /// Full administration.
        Diamond = "diamond",
        /// Limited administration.
        Emerald = "emerald",
        /// The services of one's own company.
        Sapphire = "sapphire",
        /// Reading.
        Opal = "opal",
        /// Reading.
        #[default]
        Onyx = "onyx",
    }
}

/// What was declared about a service. Parse one with [`ServiceSpec::parse`], or
/// build one with [`ServiceSpec::new`] and set its fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The unique name.
    pub name: ServiceName,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 200))]
    pub title: Option<String>,
    /// What it is good for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_length = 10000))]
    pub description: String,
    /// The version of the service itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 50))]
    pub version: Option<String>,
    /// How it is built.
    #[serde(default)]
    pub build_type: BuildType,
    /// Where it comes from.
    #[serde(default)]
    pub origin: Origin,
    /// Whether the organisation cannot do without it.
    #[serde(default)]
    pub required: bool,
    /// How urgently it is built and repaired.
    #[serde(default)]
    pub build_priority: BuildPriority,
    /// What the operator said about it.
    #[serde(default)]
    pub admin_state: AdminState,
    /// Why, in at most 500 characters; none while it is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 500))]
    pub admin_reason: Option<String>,
    /// Tags, in the order given, without repetition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// One word for the field it works in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 50))]
    pub category: Option<String>,
    /// What it can do, in words that callers filter by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// `production`, `staging`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 50))]
    pub environment: Option<String>,
    /// The company or team it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 100))]
    pub tenant: Option<String>,
    /// Who may see and manage it.
    #[serde(default)]
    pub access_level: AccessLevel,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 200))]
    pub owner: Option<String>,
    /// Where its source is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(format = "uri"))]
    pub repository_url: Option<String>,
    /// Where its documentation is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(format = "uri"))]
    pub documentation_url: Option<String>,
    /// How its health is found out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health_policy: HealthPolicy,
    /// How calls are carried out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routing_policy: RoutingPolicy,
    /// How sessions with it are kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub session_policy: SessionPolicy,
    /// Free configuration of the service.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// Environment variables for each of its child processes.
    #[serde(default, skip_serializing_if = "SensitiveMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub env: SensitiveMap,
    /// Where it runs.
    #[serde(default)]
    pub instances: Vec<Instance>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Anything else that is to be kept.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Names of the fields that a reader gets and a writer need not send.
const READ_ONLY: [&str; 9] =
    ["id", "revision", "created_at", "updated_at", "updated_by", "status", "health", "tool_count", "enabled"];

impl ServiceSpec {
    /// A service of this name with defaults everywhere and no instances.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when `name` is not a service name.
    pub fn new(name: &str) -> Result<Self> {
        Self::from_value(serde_json::json!({ "name": name }))
    }

    /// The same with one more instance.
    #[must_use]
    pub fn instance(mut self, instance: Instance) -> Self {
        self.instances.push(instance);
        self
    }

    /// Reads a service from JSON text and checks it.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the field: for text that is
    /// not JSON, unknown fields, wrong types and values out of range.
    pub fn parse(json: &str) -> Result<Self> {
        let value = serde_json::from_str(json)
            .map_err(|error| Error::invalid_field("body", format!("is not JSON: {error}")))?;
        Self::from_value(value)
    }

    /// Reads a service from a JSON value and checks it. Fields that only a
    /// reader gets (`id`, `revision`, `health`, …) are passed over; `enabled`
    /// is short for `admin_state`.
    ///
    /// # Errors
    /// As [`ServiceSpec::parse`].
    pub fn from_value(mut value: Value) -> Result<Self> {
        let mut switched = None;
        if let Some(object) = value.as_object_mut() {
            switched = enabled_switch(object)?;
            object.retain(|key, _| !READ_ONLY.contains(&key.as_str()));
        }
        let mut spec: Self = from_json(value)?;
        if let Some(admin_state) = switched {
            spec.admin_state = admin_state;
        }
        let mut seen = BTreeSet::new();
        spec.tags.retain(|tag| seen.insert(tag.clone()));
        spec.validate()?;
        Ok(spec)
    }

    /// Checks every value that its type alone does not guarantee.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with every wrong field at once.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        for (field, text, longest) in [
            ("title", self.title.as_deref(), 200),
            ("description", Some(self.description.as_str()), 10_000),
            ("version", self.version.as_deref(), 50),
            ("category", self.category.as_deref(), 50),
            ("environment", self.environment.as_deref(), 50),
            ("tenant", self.tenant.as_deref(), 100),
            ("owner", self.owner.as_deref(), 200),
        ] {
            length(field, text, longest, &mut problems);
        }
        for (field, url) in [("repository_url", &self.repository_url), ("documentation_url", &self.documentation_url)] {
            if url.as_deref().is_some_and(|url| url::Url::parse(url).is_err()) {
                problems.push(Problem { field: field.to_owned(), detail: "must be an absolute address".to_owned() });
            }
        }
        length("admin_reason", self.admin_reason.as_deref(), REASON_MAX, &mut problems);
        self.health_policy.check(&mut problems);
        self.routing_policy.check(&mut problems);
        self.session_policy.check(&mut problems);
        let mut ids = BTreeSet::new();
        for (index, instance) in self.instances.iter().enumerate() {
            instance.check(&format!("instances[{index}]"), &mut problems);
            if !ids.insert(instance.id) {
                let field = format!("instances[{index}].id");
                problems.push(Problem { field, detail: "is used by an earlier instance".to_owned() });
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }

    /// Drops the reasons of what is enabled: they have served.
    pub(crate) fn drop_stale_reasons(&mut self) {
        let instances = self.instances.iter_mut().map(|one| (one.admin_state, &mut one.admin_reason));
        for (state, reason) in instances.chain([(self.admin_state, &mut self.admin_reason)]) {
            if state == AdminState::Enabled {
                *reason = None;
            }
        }
    }

    /// Every secret with its place in the record. A store keeps these apart
    /// from the body, whose serialised form has only masks.
    #[must_use]
    pub fn secrets(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        self.clone().each_sensitive(&mut |place, value| {
            if value.is_secret() && !value.is_mask() {
                found.insert(place, value.expose().to_owned());
            }
        });
        found
    }

    /// The declaration as JSON with its secrets in clear, for the one reader that
    /// must have them: the registry that is to carry it out. Instances whose
    /// identity was not declared have none.
    #[must_use]
    pub fn exposed(&self) -> Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        for (name, value) in &self.env {
            json["env"][name] = value.expose().into();
        }
        for (index, instance) in self.instances.iter().enumerate() {
            let shown = &mut json["instances"][index];
            if let (false, Some(shown)) = (instance.has_declared_id(), shown.as_object_mut()) {
                shown.shift_remove("id");
            }
            let endpoint = &mut shown[instance.endpoint.kind()];
            instance.endpoint.clone().each_sensitive(&mut |place, value| {
                let slot = match place.split_once('/') {
                    Some(("args", index)) => index.parse::<usize>().ok().map(|index| &mut endpoint["args"][index]),
                    Some((field, name)) => Some(&mut endpoint[field][name]),
                    None => Some(&mut endpoint[place.as_str()]),
                };
                slot.into_iter().for_each(|slot| *slot = value.expose().into());
            });
        }
        json
    }

    /// Puts secrets back in their places, where only a mask stands now.
    pub fn restore_secrets(&mut self, secrets: &BTreeMap<String, String>) {
        self.each_sensitive(&mut |place, value| {
            if value.is_mask()
                && let Some(secret) = secrets.get(&place)
            {
                *value = Sensitive::secret(secret);
            }
        });
    }

    /// The place of the first mask that no secret stands behind.
    pub(crate) fn dangling_mask(&self) -> Option<String> {
        let mut found = None;
        self.clone().each_sensitive(&mut |place, value| {
            if value.is_mask() {
                found.get_or_insert(place);
            }
        });
        found
    }

    fn each_sensitive(&mut self, visit: &mut dyn FnMut(String, &mut Sensitive)) {
        for (name, value) in &mut self.env {
            visit(format!("env/{name}"), value);
        }
        for instance in &mut self.instances {
            let id = instance.id;
            instance.endpoint.each_sensitive(&mut |place, value| visit(format!("instances/{id}/{place}"), value));
        }
    }
}

fn enabled_switch(object: &Map<String, Value>) -> Result<Option<AdminState>> {
    let Some(enabled) = object.get("enabled") else { return Ok(None) };
    let Some(enabled) = enabled.as_bool() else {
        return Err(Error::invalid_field("enabled", "must be true or false"));
    };
    match (enabled, object.get("admin_state").and_then(Value::as_str)) {
        (true, None | Some("enabled")) => Ok(Some(AdminState::Enabled)),
        (false, None) => Ok(Some(AdminState::Disabled)),
        (false, Some(state)) if state != "enabled" => Ok(None),
        (_, Some(state)) => Err(Error::invalid_field("enabled", format!("{enabled} contradicts admin_state {state}"))),
    }
}

/// Reads `T` from a JSON value; an error names the field by its path.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let detail = without_value(&error.into_inner().to_string());
        Error::invalid_field(if path == "." { "body".to_owned() } else { path }, detail)
    })
}

/// A type error of serde quotes the text that it met, which may be a secret.
fn without_value(detail: &str) -> String {
    match (detail.find("string \""), detail.rfind('"')) {
        (Some(start), Some(end)) if start + 8 <= end => format!("{}text{}", &detail[..start], &detail[end + 1..]),
        _ => detail.to_owned(),
    }
}

/// A registered service: what was declared, and the registry's own fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its identity.
    pub id: ServiceId,
    /// What was declared.
    pub spec: ServiceSpec,
    /// The batch that last changed it.
    pub revision: Revision,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Who last changed it.
    pub updated_by: String,
}

impl Service {
    /// The unique name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.spec.name
    }

    /// The instance with this identity.
    #[must_use]
    pub fn instance(&self, id: super::name::InstanceId) -> Option<&Instance> {
        self.spec.instances.iter().find(|instance| instance.id == id)
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
