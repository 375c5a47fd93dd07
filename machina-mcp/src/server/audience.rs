//! Who is offered what: one principal at one endpoint, and tables that are made
//! once per revision for all who see the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use machina_core::{
    Error, Group, OfferedTool, Page, Query, Registry, Result, Revision, Scoped, ServiceName, ServiceView, ToolPage,
    ToolQuery, ToolReport,
};

use super::exposure::Exposure;
use super::rpc::shown;
use super::tools::name_of;

/// How many audiences have a table at a time.
const AUDIENCES_MAX: usize = 64;

/// What of the registry an endpoint offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) enum Selection {
    /// Every service.
    #[default]
    Everything,
    /// What the group of this name selects.
    Group(Arc<str>),
}

/// One principal at one endpoint, as of now.
#[derive(Debug, Clone)]
pub(super) struct Audience {
    scoped: Scoped,
    selection: Selection,
    group: Option<Arc<Group>>,
    /// Read before the group, so that no table made for it counts as newer than it is.
    as_of: Revision,
}

impl Audience {
    /// Whoever `scoped` stands for, where `selection` is offered.
    ///
    /// # Errors
    /// [`NotFound`](machina_core::ErrorKind::NotFound) when there is no such group.
    pub(super) fn new(scoped: Scoped, selection: Selection) -> Result<Self> {
        let as_of = scoped.revision();
        let group = match &selection {
            Selection::Everything => None,
            Selection::Group(name) => Some(scoped.group(name)?),
        };
        Ok(Self { scoped, selection, group, as_of })
    }

    /// The same as of now: the group may be another by now, or gone.
    pub(super) fn renewed(&self) -> Result<Self> {
        Self::new(self.scoped.clone(), self.selection.clone())
    }

    pub(super) fn scoped(&self) -> &Scoped {
        &self.scoped
    }

    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_deref()
    }

    /// How tools appear: as the group says, or else as `usual`.
    pub(super) fn exposure(&self, usual: Exposure) -> Exposure {
        match self.group() {
            Some(group) => Exposure { mode: group.spec().mode, prefix: group.spec().prefix, ..usual },
            None => usual,
        }
    }

    /// Whether any tool of the service is offered.
    pub(super) fn has(&self, service: &ServiceName) -> bool {
        self.group().is_none_or(|group| group.has_member(service.as_str()))
    }

    /// Whether this tool of the service is offered.
    pub(super) fn has_tool(&self, service: &ServiceName, tool: &str) -> bool {
        self.group().is_none_or(|group| group.selects(service, tool))
    }

    /// Whether all of the service is offered, and so its prompts and resources too.
    pub(super) fn has_all_of(&self, service: &ServiceName) -> bool {
        let whole = |group: &Group| {
            group.spec().members.iter().any(|member| member.service == *service && member.tools.is_none())
        };
        self.group().is_none_or(whole)
    }

    /// The services of which something is offered, by name, at one moment.
    pub(super) fn services(&self) -> Vec<Arc<ServiceView>> {
        let (_, mut services) = self.scoped.snapshot();
        services.retain(|view| self.has(view.service().name()));
        services
    }
}

/// What meta mode reads.
impl Audience {
    /// A page of the services of which something is offered; it may have fewer
    /// than it has room for.
    pub(super) fn page_of_services(&self, query: &Query) -> Result<Page<Arc<ServiceView>>> {
        let mut query = query.clone();
        loop {
            let mut page = self.scoped.services(&query)?;
            page.items.retain(|view| self.has(view.service().name()));
            match &page.next_cursor {
                Some(cursor) if page.items.is_empty() => query.cursor = Some(cursor.clone()),
                _ => return Ok(page),
            }
        }
    }

    /// The same of the tools that are offered.
    pub(super) async fn page_of_tools(&self, query: &ToolQuery) -> Result<ToolPage> {
        let mut query = query.clone();
        loop {
            let mut page = self.scoped.tools(&query).await?;
            page.items.retain(|tool| self.has_tool(&tool.service, name_of(tool)));
            match &page.next_cursor {
                Some(cursor) if page.items.is_empty() => query.cursor = Some(cursor.clone()),
                _ => return Ok(page),
            }
        }
    }

    /// The tools that fit `text` best, among those that are offered.
    pub(super) async fn find_tools(&self, text: &str, limit: usize) -> Result<Vec<ToolReport>> {
        match self.group() {
            Some(group) => self.scoped.find_group_tools(group, text, limit),
            None => self.scoped.find_tools(text, limit).await,
        }
    }

    /// How many tools of the service are offered.
    pub(super) fn count_tools(&self, view: &ServiceView) -> usize {
        let service = view.service().name();
        let offered = |tool: &&OfferedTool| self.has_tool(service, tool.tool.name().as_str());
        view.tools().iter().filter(offered).count()
    }

    /// Refuses what the endpoint does not offer, be there such a tool or not.
    ///
    /// # Errors
    /// [`NotFound`](machina_core::ErrorKind::NotFound).
    pub(super) fn must_have(&self, service: &str, tool: Option<&str>) -> Result<()> {
        let Some(group) = self.group() else { return Ok(()) };
        let name = group.name();
        // By its name: a service may be asked for by its id too.
        let service = self.scoped.service(service)?.service().name().clone();
        let offered = tool.map_or(self.has(&service), |tool| self.has_tool(&service, tool));
        if offered {
            return Ok(());
        }
        let what = tool
            .map_or_else(|| format!("service `{service}`"), |tool| format!("tool `{}` of `{service}`", shown(tool)));
        Err(Error::not_found(format!("the group `{name}` has no {what}")).with(|context| {
            context.service = Some(service.to_string());
            context.tool = tool.map(str::to_owned);
        }))
    }
}

/// Whether the operator has not taken the service out.
pub(super) fn in_use(view: &ServiceView) -> bool {
    view.service().spec.admin_state.admits_calls()
}

type Key = (Option<String>, Selection);

/// A table for each audience, made once per revision.
#[derive(Debug)]
pub(super) struct PerAudience<T> {
    by_key: Mutex<HashMap<Key, (Revision, Arc<T>)>>,
}

impl<T> PerAudience<T> {
    pub(super) fn new() -> Self {
        Self { by_key: Mutex::default() }
    }

    /// The table of those who see what `audience` does, as of now; `make` makes
    /// it of its services.
    pub(super) fn get(&self, audience: &Audience, make: impl FnOnce(&[Arc<ServiceView>]) -> T) -> Arc<T> {
        let key = (audience.scoped.principal().tenant.clone(), audience.selection.clone());
        let tables = || self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = tables().get(&key).filter(|(revision, _)| *revision == audience.as_of) {
            return Arc::clone(table);
        }
        let table = Arc::new(make(&audience.services()));
        let mut tables = tables();
        if tables.len() >= AUDIENCES_MAX && !tables.contains_key(&key) {
            tables.clear();
        }
        tables.insert(key, (audience.as_of, Arc::clone(&table)));
        table
    }
}
