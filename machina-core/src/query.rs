//! Which services to read, in which order, and how to go on where a page ended.
//! Pure: a query is matched against values and knows no registry.

use std::hash::BuildHasher as _;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::health::Status;
use crate::model::{BuildPriority, BuildType, Revision, Tag};
use crate::view::ServiceView;

/// How many services a page has at most, and when nothing is said.
const LIMIT_MAX: u32 = 200;
const LIMIT_DEFAULT: u32 = 50;

/// What services are sorted by. Ties are broken by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// By name.
    #[default]
    Name,
    /// By the time of registration.
    CreatedAt,
    /// By the time of the last change.
    UpdatedAt,
    /// By priority: HIGH first.
    BuildPriority,
    /// By status: healthy first.
    Status,
}

impl Order {
    /// The word in a query.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::BuildPriority => "build_priority",
            Self::Status => "status",
        }
    }
}

/// Which services to read. A field that is empty or `None` filters nothing; a
/// list with several values accepts any of them, except `tags` and
/// `capability`, which must all be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Words that all occur in name, title, description, category or tags, in any case.
    pub text: Option<String>,
    /// A name, or with `*` at the end the beginning of one.
    pub name: Option<String>,
    /// How they are built.
    pub build_type: Vec<BuildType>,
    /// Whether they are required.
    pub required: Option<bool>,
    /// How urgent they are.
    pub build_priority: Vec<BuildPriority>,
    /// Whether they are enabled.
    pub enabled: Option<bool>,
    /// How they are.
    pub status: Vec<Status>,
    /// Tags they all have.
    pub tags: Vec<Tag>,
    /// Capabilities they all have.
    pub capability: Vec<String>,
    /// A region in which one of their instances runs.
    pub region: Option<String>,
    /// Their environment.
    pub environment: Option<String>,
    /// Their tenant.
    pub tenant: Option<String>,
    /// Their category.
    pub category: Option<String>,
    /// A tool they offer.
    pub tool: Option<String>,
    /// What they are sorted by.
    pub order: Order,
    /// Whether the order is reversed.
    pub descending: bool,
    /// Where the page begins: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// How many there are on a page: 1 to 200, 50 by default.
    pub limit: Option<u32>,
}

/// One page of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The cursor of the next page, where there is one.
    pub next_cursor: Option<String>,
    /// The revision of the view that was read.
    pub revision: Revision,
}

impl<T> Page<T> {
    /// The same page of other items.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(change).collect(),
            next_cursor: self.next_cursor,
            revision: self.revision,
        }
    }
}

/// Where a service stands in an order: comparable, and readable back from a cursor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SortKey {
    rank: i64,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    #[serde(rename = "k")]
    after: SortKey,
    #[serde(rename = "f")]
    filter: u64,
}

impl Query {
    /// Reads a query from name–value pairs, such as those of a URL. Lists are
    /// separated by commas or by repeating the name; `order=-updated_at` is
    /// descending.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the parameter and what
    /// would be right.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut query = Self::default();
        for (name, value) in pairs {
            query.set(name, value)?;
        }
        query.limit()?;
        Ok(query)
    }

    /// The pairs that [`Query::from_pairs`] makes this query of. A tag or a
    /// capability with a comma in it cannot be told from two.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let text = |value: &Option<String>| value.clone().into_iter().collect();
        let flag = |value: Option<bool>| value.map(|value| value.to_string()).into_iter().collect();
        let order = match (self.order, self.descending) {
            (Order::Name, false) => Vec::new(),
            (order, descending) => vec![format!("{}{}", if descending { "-" } else { "" }, order.as_str())],
        };
        let values: [(&'static str, Vec<String>); 17] = [
            ("text", text(&self.text)),
            ("name", text(&self.name)),
            ("build_type", self.build_type.iter().map(|word| word.as_str().to_owned()).collect()),
            ("required", flag(self.required)),
            ("build_priority", self.build_priority.iter().map(|word| word.as_str().to_owned()).collect()),
            ("enabled", flag(self.enabled)),
            ("status", self.status.iter().map(|word| word.as_str().to_owned()).collect()),
            ("tags", self.tags.iter().map(Tag::to_string).collect()),
            ("capability", self.capability.clone()),
            ("region", text(&self.region)),
            ("environment", text(&self.environment)),
            ("tenant", text(&self.tenant)),
            ("category", text(&self.category)),
            ("tool", text(&self.tool)),
            ("order", order),
            ("cursor", text(&self.cursor)),
            ("limit", self.limit.map(|limit| limit.to_string()).into_iter().collect()),
        ];
        values.into_iter().flat_map(|(name, values)| values.into_iter().map(move |value| (name, value))).collect()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "text" | "q" | "search" => self.text = Some(value.to_owned()),
            "name" => self.name = Some(value.to_owned()),
            "build_type" => extend(name, value, &mut self.build_type, BuildType::ALL, BuildType::as_str)?,
            "required" => self.required = Some(boolean(name, value)?),
            "build_priority" | "priority" => {
                extend(
                    name,
                    &value.to_uppercase(),
                    &mut self.build_priority,
                    BuildPriority::ALL,
                    BuildPriority::as_str,
                )?;
            }
            "enabled" => self.enabled = Some(boolean(name, value)?),
            "status" => extend(name, value, &mut self.status, Status::ALL, Status::as_str)?,
            "tags" | "tag" => {
                for tag in value.split(',') {
                    self.tags.push(Tag::from_str(tag)?);
                }
            }
            "capability" | "capabilities" => self.capability.extend(value.split(',').map(str::to_owned)),
            "region" => self.region = Some(value.to_owned()),
            "environment" => self.environment = Some(value.to_owned()),
            "tenant" => self.tenant = Some(value.to_owned()),
            "category" => self.category = Some(value.to_owned()),
            "tool" => self.tool = Some(value.to_owned()),
            "order" => self.set_order(value)?,
            "cursor" => self.cursor = Some(value.to_owned()),
            "limit" => {
                let limit = value.parse().map_err(|_| Error::invalid_field("limit", "must be a number"))?;
                self.limit = Some(limit);
            }
            _ => return Err(Error::invalid_field(name, format!("is no parameter; there are {PARAMETERS}"))),
        }
        Ok(())
    }

    fn set_order(&mut self, value: &str) -> Result<()> {
        let (descending, word) = value.strip_prefix('-').map_or((false, value), |word| (true, word));
        self.order = serde_json::from_value(word.into()).map_err(|_| {
            let words = "name, created_at, updated_at, build_priority or status, with `-` before it to reverse";
            Error::invalid_field("order", format!("must be {words}"))
        })?;
        self.descending = descending;
        Ok(())
    }

    /// The number of services on a page.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when it is not 1 to 200.
    pub fn limit(&self) -> Result<usize> {
        match self.limit.unwrap_or(LIMIT_DEFAULT) {
            limit @ 1..=LIMIT_MAX => Ok(limit as usize),
            limit => Err(Error::invalid_field("limit", format!("must be 1 to {LIMIT_MAX}, is {limit}"))),
        }
    }

    /// Whether a service is one of those asked for.
    pub(crate) fn matches(&self, view: &ServiceView) -> bool {
        let spec = &view.service().spec;
        let opt = |filter: &Option<String>, value: &Option<String>| filter.is_none() || filter == value;
        self.name.as_deref().is_none_or(|pattern| matches_name(pattern, spec.name.as_str()))
            && (self.build_type.is_empty() || self.build_type.contains(&spec.build_type))
            && self.required.is_none_or(|required| required == spec.required)
            && (self.build_priority.is_empty() || self.build_priority.contains(&spec.build_priority))
            && self.enabled.is_none_or(|enabled| enabled == spec.admin_state.admits_calls())
            && (self.status.is_empty() || self.status.contains(&view.status()))
            && self.tags.iter().all(|tag| spec.tags.contains(tag))
            && self.capability.iter().all(|capability| spec.capabilities.contains(capability))
            && self
                .region
                .as_ref()
                .is_none_or(|region| spec.instances.iter().any(|i| i.region.as_ref() == Some(region)))
            && opt(&self.environment, &spec.environment)
            && opt(&self.tenant, &spec.tenant)
            && opt(&self.category, &spec.category)
            && self.tool.as_deref().is_none_or(|tool| view.tool(tool).is_some())
            && self.text.as_deref().is_none_or(|text| view.contains_words(text))
    }

    pub(crate) fn sort_key(&self, view: &ServiceView) -> SortKey {
        let service = view.service();
        let rank = match self.order {
            Order::Name => 0,
            Order::CreatedAt => service.created_at.as_millisecond(),
            Order::UpdatedAt => service.updated_at.as_millisecond(),
            Order::BuildPriority => service.spec.build_priority as i64,
            Order::Status => view.status() as i64,
        };
        SortKey { rank, name: service.name().to_string() }
    }

    /// A number that differs for queries with other filters or another order.
    fn filter_hash(&self) -> u64 {
        foldhash::fast::FixedState::with_seed(1).hash_one(Self { cursor: None, limit: None, ..self.clone() })
    }

    pub(crate) fn cursor_after(&self, after: SortKey) -> String {
        let cursor = Cursor { after, filter: self.filter_hash() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
    }

    /// Where the page begins: after this key.
    pub(crate) fn after(&self) -> Result<Option<SortKey>> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let cursor: Option<Cursor> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match cursor {
            Some(cursor) if cursor.filter == self.filter_hash() => Ok(Some(cursor.after)),
            Some(_) => Err(Error::invalid_field("cursor", "belongs to a query with other filters or another order")),
            None => Err(Error::invalid_field("cursor", "is not a cursor: send `next_cursor` of a page as it is")),
        }
    }
}

const PARAMETERS: &str = "text, name, build_type, required, build_priority, enabled, status, tags, capability, \
                          region, environment, tenant, category, tool, order, cursor, limit";

fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

fn boolean(name: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Error::invalid_field(name, "must be true or false")),
    }
}

fn extend<T: Copy>(name: &str, value: &str, into: &mut Vec<T>, all: &[T], word: fn(T) -> &'static str) -> Result<()> {
    for part in value.split(',') {
        let Some(found) = all.iter().find(|candidate| word(**candidate) == part) else {
            let words = all.iter().map(|candidate| word(*candidate)).collect::<Vec<_>>().join(", ");
            return Err(Error::invalid_field(name, format!("`{}` is none of {words}", part.escape_debug())));
        };
        into.push(*found);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_a_query() {
        let pairs = [("build_type", "fastmcp,docker"), ("tag", "a"), ("tags", "b,c"), ("order", "-updated_at")];
        let query = Query::from_pairs(pairs).unwrap();
        assert_eq!(query.build_type, [BuildType::Fastmcp, BuildType::Docker]);
        assert_eq!(query.tags.len(), 3);
        assert_eq!((query.order, query.descending), (Order::UpdatedAt, true));
    }

    #[test]
    fn a_query_becomes_pairs_and_back() {
        let text = |text: &str| Some(text.to_owned());
        let query = Query {
            text: text("a b"),
            name: text("n*"),
            build_type: vec![BuildType::Docker, BuildType::Other],
            required: Some(false),
            build_priority: vec![BuildPriority::High],
            enabled: Some(true),
            status: vec![Status::Healthy, Status::Unknown],
            tags: vec![Tag::new("x").unwrap(), Tag::new("y").unwrap()],
            capability: vec!["c".to_owned()],
            region: text("r"),
            environment: text("e"),
            tenant: text("t"),
            category: text("k"),
            tool: text("l"),
            order: Order::UpdatedAt,
            descending: true,
            cursor: text("abc"),
            limit: Some(7),
        };
        for query in [query, Query::default()] {
            let pairs = query.to_pairs();
            let read = Query::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_str()))).unwrap();
            assert_eq!(read, query);
        }
        let orders = [Order::Name, Order::CreatedAt, Order::UpdatedAt, Order::BuildPriority, Order::Status];
        assert!(orders.iter().all(|order| serde_json::to_value(order).unwrap() == order.as_str()));
    }

    #[test]
    fn wrong_parameters_are_named() {
        let wrong = [
            ("colour", "blue"),
            ("required", "maybe"),
            ("status", "fine"),
            ("limit", "0"),
            ("limit", "x"),
            ("order", "size"),
            ("tags", ""),
        ];
        for (name, value) in wrong {
            let error = Query::from_pairs([(name, value)]).unwrap_err();
            assert_eq!(error.context().problems[0].field, if name == "tags" { "tag" } else { name });
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_query() {
        let query = Query::default();
        let key = SortKey { rank: 0, name: "a".into() };
        let cursor = query.cursor_after(key.clone());
        let next = Query { cursor: Some(cursor.clone()), limit: Some(3), ..query };
        assert_eq!(next.after().unwrap(), Some(key));
        let other = Query { required: Some(true), cursor: Some(cursor), ..Query::default() };
        assert!(other.after().unwrap_err().message().contains("other filters"));
        let garbage = Query { cursor: Some("%".into()), ..Query::default() };
        assert!(garbage.after().is_err());
    }
}
