//! The group: a named selection of tools that MCP hosts reach at an endpoint of
//! its own. It refuses to know whether the services that it names exist: they may
//! come and go.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exposure::{ToolMode, ToolPrefix};
use super::name::{GroupName, Revision, ServiceName};
use super::policy::length;
use super::service::from_json;
use crate::error::{Error, Problem, Result};

/// How many services a group may name.
const MEMBERS_MAX: usize = 1000;

/// How many tools and patterns a group may name, over all its members.
const TOOLS_MAX: usize = 10_000;

/// Names that are endpoints of their own beside those of groups.
const RESERVED: [&str; 4] = ["ws", "list_tools", "find_tool", "call_tool"];

/// What was declared about a group. Parse one with [`GroupSpec::from_value`], or
/// build one with [`GroupSpec::new`] and set its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// The unique name, and the last segment of the endpoint.
    pub name: GroupName,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 200))]
    pub title: Option<String>,
    /// What it is good for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_length = 10000))]
    pub description: String,
    /// The company or team it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 100))]
    pub tenant: Option<String>,
    /// What it selects; each service once.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub members: Vec<GroupMember>,
    /// Which tools a host of the group sees.
    #[serde(default = "flat")]
    pub mode: ToolMode,
    /// When the name of a tool is preceded by that of its service.
    #[serde(default)]
    pub prefix: ToolPrefix,
}

/// What a group selects of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GroupMember {
    /// The service, which need not exist.
    pub service: ServiceName,
    /// Its tools; all of them when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub tools: Option<Vec<ToolPattern>>,
}

const fn flat() -> ToolMode {
    ToolMode::Flat
}

/// Names of the fields that a reader gets and a writer need not send.
const READ_ONLY: [&str; 6] = ["revision", "created_at", "updated_at", "updated_by", "missing", "tool_count"];

impl GroupSpec {
    /// A group of this name that selects nothing yet.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when `name` is not a group name.
    pub fn new(name: &str) -> Result<Self> {
        Self::from_value(serde_json::json!({ "name": name }))
    }

    /// The same with all tools of one more service.
    #[must_use]
    pub fn member(mut self, service: ServiceName) -> Self {
        self.members.push(GroupMember { service, tools: None });
        self
    }

    /// Reads a group from a JSON value and checks it. Fields that only a reader
    /// gets (`revision`, `missing`, …) are passed over.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the field: for unknown
    /// fields, wrong types and values out of range.
    pub fn from_value(mut value: Value) -> Result<Self> {
        if let Some(object) = value.as_object_mut() {
            object.retain(|key, _| !READ_ONLY.contains(&key.as_str()));
        }
        let spec: Self = from_json(value)?;
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
            ("tenant", self.tenant.as_deref(), 100),
        ] {
            length(field, text, longest, &mut problems);
        }
        if RESERVED.contains(&self.name.as_str()) {
            let detail = format!("must not be `{}`: `/mcp/{}` is another endpoint", self.name, self.name);
            problems.push(Problem { field: "name".to_owned(), detail });
        }
        self.check_members(&mut problems);
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }

    fn check_members(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |field: String, detail: String| problems.push(Problem { field, detail });
        if self.members.len() > MEMBERS_MAX {
            let detail = format!("must be at most {MEMBERS_MAX}, are {}", self.members.len());
            return wrong("members".to_owned(), detail);
        }
        let named: usize = self.members.iter().filter_map(|member| member.tools.as_ref()).map(Vec::len).sum();
        if named > TOOLS_MAX {
            wrong("members".to_owned(), format!("must name at most {TOOLS_MAX} tools together, name {named}"));
        }
        let mut services = BTreeSet::new();
        for (index, member) in self.members.iter().enumerate() {
            if !services.insert(&member.service) {
                let detail = format!("`{}` is named by an earlier member: put its tools there", member.service);
                wrong(format!("members[{index}].service"), detail);
            }
            if member.tools.as_ref().is_some_and(Vec::is_empty) {
                let detail = "must name a tool; leave it out for all tools of the service";
                wrong(format!("members[{index}].tools"), detail.to_owned());
            }
        }
    }
}

/// The exact name of a tool, or a pattern in which each `*` stands for any
/// number of characters: 1 to 128 characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, min_length = 1, max_length = 128))]
#[serde(try_from = "String", into = "String")]
pub struct ToolPattern(Arc<str>);

impl ToolPattern {
    /// Parses `text`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), saying what would be right.
    pub fn new(text: &str) -> Result<Self> {
        Self::try_from(text.to_owned()).map_err(|detail| Error::invalid_field("tools", detail))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ToolPattern {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        super::name::check_tool_name(&text)?;
        Ok(Self(text.into()))
    }
}

impl From<ToolPattern> for String {
    fn from(pattern: ToolPattern) -> Self {
        pattern.0.as_ref().to_owned()
    }
}

impl fmt::Display for ToolPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A group as it is kept: what was declared, and the registry's own fields.
#[derive(Debug, Clone)]
pub struct Group {
    spec: GroupSpec,
    selected: Arc<HashMap<ServiceName, Selected>>,
    /// The batch that last changed it.
    pub revision: Revision,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Who last changed it.
    pub updated_by: String,
}

/// Which tools of a service belong to a group.
#[derive(Debug)]
enum Selected {
    All,
    Some { exact: HashSet<ToolPattern>, globs: Vec<Glob> },
}

impl Group {
    /// A group that was declared now, and is not yet committed.
    #[must_use]
    pub fn new(spec: GroupSpec, at: Timestamp, by: impl Into<String>) -> Self {
        let members = spec.members.iter();
        let selected = members.map(|member| (member.service.clone(), Selected::of(member.tools.as_deref()))).collect();
        Self {
            spec,
            selected: Arc::new(selected),
            revision: Revision::ZERO,
            created_at: at,
            updated_at: at,
            updated_by: by.into(),
        }
    }

    /// What was declared.
    #[must_use]
    pub fn spec(&self) -> &GroupSpec {
        &self.spec
    }

    /// The unique name.
    #[must_use]
    pub fn name(&self) -> &GroupName {
        &self.spec.name
    }

    /// The same, as committed by the batch of this revision.
    #[must_use]
    pub fn at_revision(&self, revision: Revision) -> Self {
        Self { revision, ..self.clone() }
    }

    /// Whether the service is a member.
    #[must_use]
    pub fn has_member(&self, service: &str) -> bool {
        self.selected.contains_key(service)
    }

    /// Whether `tool` of `service` belongs to the group. Costs a look-up, and a
    /// match for each pattern that is declared for the service.
    #[must_use]
    pub fn selects(&self, service: &ServiceName, tool: &str) -> bool {
        match self.selected.get(service) {
            None => false,
            Some(Selected::All) => true,
            Some(Selected::Some { exact, globs }) => {
                exact.contains(tool) || globs.iter().any(|glob| glob.matches(tool))
            }
        }
    }
}

/// Two groups are equal when everything that a store keeps of them is.
impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        let own = (&self.spec, self.revision, self.created_at, self.updated_at, &self.updated_by);
        own == (&other.spec, other.revision, other.created_at, other.updated_at, &other.updated_by)
    }
}

impl std::borrow::Borrow<str> for ToolPattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Selected {
    fn of(tools: Option<&[ToolPattern]>) -> Self {
        let Some(tools) = tools else { return Self::All };
        let (globs, exact): (Vec<_>, Vec<_>) = tools.iter().cloned().partition(|pattern| pattern.0.contains('*'));
        if globs.iter().any(|glob| glob.0.bytes().all(|byte| byte == b'*')) {
            return Self::All;
        }
        let globs = globs.iter().map(|pattern| Glob::of(&pattern.0)).collect();
        Self::Some { exact: exact.into_iter().collect(), globs }
    }
}

/// A pattern with at least one `*`: what a name begins with, what it has in
/// between, in order, and what it ends with.
#[derive(Debug)]
struct Glob {
    start: String,
    between: Vec<String>,
    end: String,
}

impl Glob {
    fn of(pattern: &str) -> Self {
        let (start, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
        let (between, end) = rest.rsplit_once('*').unwrap_or(("", rest));
        let between = between.split('*').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Self { start: start.to_owned(), between, end: end.to_owned() }
    }

    fn matches(&self, name: &str) -> bool {
        let inner = name.strip_prefix(&*self.start).and_then(|rest| rest.strip_suffix(&*self.end));
        // Each part at the first place where it fits leaves most to those after it.
        let rest = |rest: &'_ str, part: &String| rest.find(&**part).map(|place| place + part.len());
        let mut left = inner;
        for part in &self.between {
            left = left.and_then(|text| rest(text, part).map(|end| &text[end..]));
        }
        left.is_some()
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
