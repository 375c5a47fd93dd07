//! Flat mode: every tool of every service as a tool of this server, word for
//! word but for its name. A list is read from what is known: an upstream that is
//! slow or dead keeps its last known tools, and delays nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use machina_core::{Revision, Scoped, ServiceHealth, ServiceName, ServiceView, Status, Tool};
use serde_json::{Value, json};

use super::exposure::ToolPrefix;
use super::flat_names::{Original, names};
use super::protocol::{FRESH, Reply};
use super::rpc::{Fault, INVALID_PARAMS, Object, object};

/// How many tools a page has at most, and how many bytes of JSON unless its
/// first tool alone has more.
const PAGE_TOOLS_MAX: usize = 1000;
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How many audiences have a table at a time.
const AUDIENCES_MAX: usize = 64;
/// The key in `_meta` of a list under which services are named whose tools are
/// those that were last known, because nobody answers there now.
const STALE: &str = "dev.machina/stale";

/// The tables of all audiences, each made once per revision.
#[derive(Debug)]
pub(super) struct FlatTables {
    prefix: ToolPrefix,
    /// By tenant: who sees the same services sees the same table.
    by_audience: Mutex<HashMap<Option<String>, Arc<FlatTable>>>,
}

/// The tools that one audience sees at one revision.
#[derive(Debug)]
pub(super) struct FlatTable {
    revision: Revision,
    /// By service, and in the order of its server.
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

/// One tool.
#[derive(Debug)]
pub(super) struct Entry {
    name: String,
    pub(super) service: ServiceName,
    pub(super) tool: Arc<Tool>,
    /// Its place among the tools of its service.
    place: usize,
    /// The length of its definition.
    bytes: usize,
}

impl FlatTables {
    pub(super) fn new(prefix: ToolPrefix) -> Self {
        Self { prefix, by_audience: Mutex::default() }
    }

    /// The table of those who see what `scoped` does, as of now.
    pub(super) fn of(&self, scoped: &Scoped) -> Arc<FlatTable> {
        let tenant = &scoped.principal().tenant;
        let revision = scoped.revision();
        let by_audience = || self.by_audience.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = by_audience().get(tenant).filter(|table| table.revision == revision) {
            return Arc::clone(table);
        }
        let (revision, services) = scoped.snapshot();
        let table = Arc::new(FlatTable::new(revision, &services, self.prefix));
        let mut tables = by_audience();
        if tables.len() >= AUDIENCES_MAX && !tables.contains_key(tenant) {
            tables.clear();
        }
        tables.insert(tenant.clone(), Arc::clone(&table));
        table
    }
}

impl FlatTable {
    fn new(revision: Revision, services: &[Arc<ServiceView>], prefix: ToolPrefix) -> Self {
        let in_use = services.iter().filter(|view| view.service().spec.admin_state.admits_calls());
        let tools: Vec<(&ServiceName, usize, &Arc<Tool>)> = in_use
            .flat_map(|view| {
                let tools = view.tools().iter().enumerate();
                tools.map(|(place, offered)| (view.service().name(), place, &offered.tool))
            })
            .collect();
        let originals: Vec<Original<'_>> = tools
            .iter()
            .map(|(service, _, tool)| Original { service: service.as_str(), tool: tool.name().as_str() })
            .collect();
        let entries: Vec<Entry> = names(prefix, &originals)
            .into_iter()
            .zip(tools)
            .map(|(name, (service, place, tool))| {
                let bytes = tool.definition().to_string().len();
                Entry { name, service: service.clone(), tool: Arc::clone(tool), place, bytes }
            })
            .collect();
        let by_name = entries.iter().enumerate().map(|(index, entry)| (entry.name.clone(), index)).collect();
        Self { revision, entries, by_name }
    }

    /// The tool of this name.
    pub(super) fn resolve(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|index| &self.entries[*index])
    }

    /// Whether a host that knows `other` knows this.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let alike = |(one, two): (&Entry, &Entry)| one.name == two.name && one.tool == two.tool;
        self.revision == other.revision
            || (self.entries.len() == other.entries.len() && self.entries.iter().zip(&other.entries).all(alike))
    }

    /// What `tools/list` answers.
    pub(super) fn page(&self, scoped: &Scoped, params: &Object) -> Result<Reply, Fault> {
        let first = match params.get("cursor") {
            None | Some(Value::Null) => 0,
            Some(cursor) => {
                let wrong = || Fault::new(INVALID_PARAMS, "cursor: is not one of this server");
                self.after(cursor.as_str().and_then(read_cursor).ok_or_else(wrong)?)
            }
        };
        let page = &self.entries[first..self.end_of_page(first)];
        let tools: Vec<Value> = page.iter().map(Entry::definition).collect();
        let mut result = json!({ "tools": tools });
        if let Some(last) = page.last().filter(|_| first + page.len() < self.entries.len()) {
            result["nextCursor"] = cursor_after(last).into();
        }
        let stale = stale(scoped, page);
        if !stale.is_empty() {
            result["_meta"] = json!({ STALE: stale });
        }
        Ok(Reply::cached(result, FRESH))
    }

    /// The first entry after the one that a cursor names, be it still there or not.
    fn after(&self, (service, place): (String, usize)) -> usize {
        self.entries.partition_point(|entry| (entry.service.as_str(), entry.place) <= (service.as_str(), place))
    }

    fn end_of_page(&self, first: usize) -> usize {
        let mut bytes = 0;
        let fitting = self.entries[first..].iter().take(PAGE_TOOLS_MAX).take_while(|entry| {
            let begins = bytes == 0;
            bytes += entry.bytes;
            begins || bytes <= PAGE_BYTES_MAX
        });
        first + fitting.count()
    }
}

impl Entry {
    fn definition(&self) -> Value {
        let mut definition = object(self.tool.definition().clone());
        // In its old place: the order of keys is the server's.
        definition.insert("name".to_owned(), self.name.clone().into());
        Value::Object(definition)
    }
}

/// The services of a page from which nobody answers now, each with its status
/// and since when.
fn stale(scoped: &Scoped, page: &[Entry]) -> Vec<Value> {
    let mut services: Vec<&ServiceName> = page.iter().map(|entry| &entry.service).collect();
    services.dedup();
    let views = services.into_iter().filter_map(|service| scoped.service(service.as_str()).ok());
    let silent = views.filter(|view| !matches!(view.status(), Status::Healthy | Status::Degraded));
    silent
        .map(|view| {
            let ServiceHealth { service, status, health, .. } = ServiceHealth::from(&*view);
            json!({"service": service, "status": status, "since": health.since})
        })
        .collect()
}

fn cursor_after(entry: &Entry) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{}:{}", entry.place, entry.service))
}

fn read_cursor(cursor: &str) -> Option<(String, usize)> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (place, service) = text.split_once(':')?;
    Some((service.to_owned(), place.parse().ok()?))
}
