//! The facade: one handle over registry, health, routing, search and store.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::access::{GroupReport, Principal, Scoped};
use crate::builder::Builder;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::EventStream;
use crate::model::{AdminState, GroupSpec, InstanceId, Revision, ServiceName, ServiceSpec, ToolCall};
use crate::query::{Page, Query};
use crate::report::{ServiceHealth, ServiceReport, ToolReport};
use crate::route::{CallOptions, CallReport, Explanation};
use crate::store::{JournalPage, JournalQuery};
use crate::view::{ServiceView, View};
use crate::write::Mutation;

/// What came of [`Registry::apply`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied<T = ServiceReport> {
    /// The revision at which everything is visible.
    pub revision: Revision,
    /// The services that were put, in the order of the mutations.
    pub services: Vec<T>,
}

/// Which tools to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToolQuery {
    /// Only those of this service.
    pub service: Option<String>,
    /// Where the page begins: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// How many there are on a page: 1 to 1000, 100 by default.
    pub limit: Option<u32>,
}

/// One page of tools.
pub type ToolPage = Page<ToolReport>;

impl ToolQuery {
    /// One page of the tools of the services that `admits` accepts, by service
    /// and in the order of the server.
    pub(crate) fn page(&self, view: &View, admits: &dyn Fn(&ServiceView) -> bool) -> Result<ToolPage> {
        let limit = match self.limit.unwrap_or(100) {
            limit @ 1..=1000 => limit as usize,
            limit => return Err(Error::invalid_field("limit", format!("must be 1 to 1000, is {limit}"))),
        };
        let after = self.after()?;
        let mut items = Vec::new();
        for service in view.services().filter(|service| admits(service)) {
            let name = service.service().name();
            if self.service.as_ref().is_some_and(|wanted| wanted != name.as_str()) {
                continue;
            }
            let skip = match &after {
                Some((last, _)) if name.as_str() < last.as_str() => continue,
                Some((last, index)) if name.as_str() == last.as_str() => index.saturating_add(1),
                _ => 0,
            };
            for (index, offered) in service.tools().iter().enumerate().skip(skip) {
                if items.len() == limit {
                    let last: &ToolReport = &items[limit - 1];
                    let index = if last.service == *name { index - 1 } else { usize::MAX - 1 };
                    let text = format!("{index}:{}", last.service);
                    let next_cursor = Some(URL_SAFE_NO_PAD.encode(text));
                    return Ok(Page { items, next_cursor, revision: view.revision() });
                }
                items.push(ToolReport::of(name, &offered.tool, None));
            }
        }
        Ok(Page { items, next_cursor: None, revision: view.revision() })
    }

    fn after(&self) -> Result<Option<(String, usize)>> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let text = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let parts = text.as_deref().and_then(|text| text.split_once(':'));
        let after = parts.and_then(|(index, name)| Some((name.to_owned(), index.parse().ok()?)));
        after
            .map(Some)
            .ok_or_else(|| Error::invalid_field("cursor", "is not a cursor: send `next_cursor` of a page as it is"))
    }
}

/// What adapters and programs see of a registry, near or far: [`Machina`],
/// [`Scoped`] and the HTTP client implement it.
#[async_trait]
pub trait Registry: std::fmt::Debug + Send + Sync {
    /// Applies mutations: all of them, or none.
    ///
    /// # Errors
    /// The first mutation that cannot be, with the service in the context.
    async fn apply(&self, mutations: Vec<Mutation>) -> Result<Applied>;

    /// The service of this name or identity.
    async fn get(&self, name: &str) -> Result<ServiceReport>;

    /// One page of the services that `query` asks for.
    async fn find(&self, query: &Query) -> Result<Page<ServiceReport>>;

    /// One page of the tools that `query` asks for.
    async fn tools(&self, query: &ToolQuery) -> Result<ToolPage>;

    /// One tool of a service.
    async fn tool(&self, service: &str, tool: &str) -> Result<ToolReport>;

    /// The tools that fit `text` best, best first; `limit` is 1 to 100.
    async fn find_tools(&self, text: &str, limit: usize) -> Result<Vec<ToolReport>>;

    /// The health of a service and of each of its instances.
    async fn health(&self, name: &str) -> Result<ServiceHealth>;

    /// Everything that changes from now on, or since a revision.
    async fn watch(&self, since: Option<Revision>) -> Result<EventStream>;

    /// Every group, by name.
    async fn groups(&self) -> Result<Vec<GroupReport>>;

    /// The group of this name.
    async fn group(&self, name: &str) -> Result<GroupReport>;

    /// Makes a group, or replaces its declaration: only the first with
    /// `create_only`, only the second, and at that revision, with `expected`.
    async fn put_group(&self, spec: GroupSpec, expected: Option<Revision>, create_only: bool) -> Result<GroupReport>;

    /// Removes a group; with `expected`, only if it is at that revision.
    async fn remove_group(&self, name: &str, expected: Option<Revision>) -> Result<Revision>;
}

/// Carries calls to instances.
#[async_trait]
pub trait Router: std::fmt::Debug + Send + Sync {
    /// Why a call would go where it would go.
    async fn explain(&self, service: &str, tool: Option<&str>) -> Result<Explanation>;

    /// Calls a tool on a healthy instance, failing over where that is safe.
    ///
    /// # Errors
    /// The context says how many attempts were made, on which instance the last,
    /// and whether the tool may have been executed.
    async fn call(&self, call: &ToolCall, options: &CallOptions) -> Result<CallReport>;
}

/// A registry. Cheap to clone; every clone is the same registry. Close it with
/// [`Machina::close`], which ends what it started.
#[derive(Debug, Clone)]
pub struct Machina {
    system: Scoped,
}

impl Machina {
    /// What a new registry is made of.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn of(system: Scoped) -> Self {
        Self { system }
    }

    /// The registry as `principal` sees it.
    #[must_use]
    pub fn scoped(&self, principal: Principal) -> Scoped {
        Scoped { core: Arc::clone(&self.system.core), principal: Arc::new(principal) }
    }

    /// The registry as its own program sees it: all of it.
    #[must_use]
    pub fn system(&self) -> &Scoped {
        &self.system
    }

    /// The configuration it was built with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.system.core.config
    }

    /// The whole registry at this moment. Costs nanoseconds; never blocks.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.system.core.view()
    }

    /// The service of this name. Costs nanoseconds; never blocks.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<ServiceView>> {
        self.system.core.view.load().get(name).cloned()
    }

    /// One page of the services that `query` asks for. Never blocks.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a limit out of range or a
    /// cursor of another query.
    pub fn find(&self, query: &Query) -> Result<Page<Arc<ServiceView>>> {
        self.system.services(query)
    }

    /// Applies mutations: all of them, or none.
    ///
    /// # Errors
    /// See [`Registry::apply`].
    pub async fn apply(&self, mutations: Vec<Mutation>) -> Result<Applied<Arc<ServiceView>>> {
        self.system.change(mutations).await
    }

    /// Registers a new service; its instances are probed at once.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when the name is taken,
    /// [`Invalid`](crate::ErrorKind::Invalid).
    pub async fn register(&self, spec: ServiceSpec) -> Result<Arc<ServiceView>> {
        self.one(Mutation::Register(spec)).await
    }

    /// Replaces the declaration of a service. With `expected`, only if it is
    /// still at that revision.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Conflict`](crate::ErrorKind::Conflict),
    /// [`Invalid`](crate::ErrorKind::Invalid).
    pub async fn update(&self, name: &str, spec: ServiceSpec, expected: Option<Revision>) -> Result<Arc<ServiceView>> {
        let name = ServiceName::new(name)?;
        self.one(Mutation::Update { name, spec, expected }).await
    }

    /// Removes a service; its sessions are closed when their calls have ended.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn deregister(&self, name: &str) -> Result<Revision> {
        let name = ServiceName::new(name)?;
        Ok(self.apply(vec![Mutation::Deregister { name, expected: None }]).await?.revision)
    }

    /// Says something about a service, or about one instance of it; to say why
    /// too, apply [`Mutation::SetAdminState`].
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn set_admin_state(
        &self,
        name: &str,
        instance: Option<InstanceId>,
        admin_state: AdminState,
    ) -> Result<Arc<ServiceView>> {
        let name = ServiceName::new(name)?;
        self.one(Mutation::SetAdminState { name, instance, admin_state, reason: None }).await
    }

    async fn one(&self, mutation: Mutation) -> Result<Arc<ServiceView>> {
        let applied = self.apply(vec![mutation]).await?;
        applied.services.into_iter().next().ok_or_else(|| Error::conflict("the service was removed meanwhile"))
    }

    /// Calls a tool on a healthy instance, failing over where that is safe.
    ///
    /// # Errors
    /// See [`Router::call`].
    pub async fn call(&self, call: &ToolCall, options: &CallOptions) -> Result<CallReport> {
        Router::call(&self.system, call, options).await
    }

    /// Why a call would go where it would go.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn explain(&self, service: &str, tool: Option<&str>) -> Result<Explanation> {
        Router::explain(&self.system, service, tool).await
    }

    /// The tools that fit `text` best, best first.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for an empty text or a limit that is not 1 to 100.
    pub async fn find_tools(&self, text: &str, limit: usize) -> Result<Vec<ToolReport>> {
        Registry::find_tools(&self.system, text, limit).await
    }

    /// The health of a service and of each of its instances.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn health(&self, name: &str) -> Result<ServiceHealth> {
        Registry::health(&self.system, name).await
    }

    /// Everything that changes from now on.
    #[must_use]
    pub fn watch(&self) -> EventStream {
        self.system.core.events.subscribe()
    }

    /// Everything that changed since a revision, and from now on.
    #[must_use]
    pub fn watch_since(&self, revision: Revision) -> EventStream {
        self.system.core.events.subscribe_since(revision)
    }

    /// Probes every instance of a service now, with the same probe as the
    /// monitor's, and returns what came of it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn check(&self, name: &str) -> Result<ServiceHealth> {
        self.system.check(name).await
    }

    /// Reads the journal, newest first.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn journal(&self, query: &JournalQuery) -> Result<JournalPage> {
        self.system.journal(query).await
    }

    /// Ends what the registry started: probes, sessions with their processes,
    /// tasks; writes what is queued and closes the store. Takes at most the
    /// configured `sessions.close_timeout` and a little more.
    pub async fn close(&self) {
        let core = &self.system.core;
        core.monitor_tasks.close(core.config.sessions.close_timeout).await;
        core.retire().await;
        core.sessions.close().await;
        let patience = core.config.sessions.close_timeout;
        core.recorder.finish(core.last_words(), patience).await;
        if !core.tasks.close(patience).await {
            tracing::warn!("some tasks did not end in time");
        }
        if let Err(error) = core.store.close().await {
            tracing::warn!(%error, "the store did not close cleanly");
        }
    }
}

#[async_trait]
impl Registry for Machina {
    async fn apply(&self, mutations: Vec<Mutation>) -> Result<Applied> {
        Registry::apply(&self.system, mutations).await
    }
    async fn get(&self, name: &str) -> Result<ServiceReport> {
        self.system.get(name).await
    }
    async fn find(&self, query: &Query) -> Result<Page<ServiceReport>> {
        self.system.find(query).await
    }
    async fn tools(&self, query: &ToolQuery) -> Result<ToolPage> {
        self.system.tools(query).await
    }
    async fn tool(&self, service: &str, tool: &str) -> Result<ToolReport> {
        self.system.tool(service, tool).await
    }
    async fn find_tools(&self, text: &str, limit: usize) -> Result<Vec<ToolReport>> {
        self.system.find_tools(text, limit).await
    }
    async fn health(&self, name: &str) -> Result<ServiceHealth> {
        self.system.health(name).await
    }
    async fn watch(&self, since: Option<Revision>) -> Result<EventStream> {
        Registry::watch(&self.system, since).await
    }
    async fn groups(&self) -> Result<Vec<GroupReport>> {
        Registry::groups(&self.system).await
    }
    async fn group(&self, name: &str) -> Result<GroupReport> {
        Registry::group(&self.system, name).await
    }
    async fn put_group(&self, spec: GroupSpec, expected: Option<Revision>, create_only: bool) -> Result<GroupReport> {
        Registry::put_group(&self.system, spec, expected, create_only).await
    }
    async fn remove_group(&self, name: &str, expected: Option<Revision>) -> Result<Revision> {
        Registry::remove_group(&self.system, name, expected).await
    }
}

#[async_trait]
impl Router for Machina {
    async fn explain(&self, service: &str, tool: Option<&str>) -> Result<Explanation> {
        Router::explain(&self.system, service, tool).await
    }
    async fn call(&self, call: &ToolCall, options: &CallOptions) -> Result<CallReport> {
        Router::call(&self.system, call, options).await
    }
}

#[cfg(test)]
#[path = "machina_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "session_tests.rs"]
mod session_tests;

#[cfg(test)]
#[path = "operator_tests.rs"]
mod operator_tests;
