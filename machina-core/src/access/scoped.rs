//! A handle that may see and do only what its principal may, and leaves an audit
//! trail. Adapters hold one of these per request and decide nothing themselves.

use std::sync::Arc;

use async_trait::async_trait;

use super::commands::refuse_new_commands;
use super::egress::refuse_unreachable;
use super::groups::GroupReport;
use super::heartbeats::registered;
use super::principal::{Principal, Role};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::event::{EventCursor, EventStream};
use crate::machina::{Applied, Registry, ToolPage, ToolQuery};
use crate::model::{GroupSpec, Revision};
use crate::query::{Page, Query};
use crate::report::{Overview, ServiceHealth, ServiceReport, ToolReport};
use crate::view::{ServiceView, View};
use crate::write::{Mutation, Plan, no_service, plan};

/// A registry as one principal sees it. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub struct Scoped {
    pub(crate) core: Arc<Core>,
    pub(crate) principal: Arc<Principal>,
}

impl Scoped {
    /// The principal.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The service of this name or identity, if the principal may see it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub fn service(&self, name: &str) -> Result<Arc<ServiceView>> {
        let view = self.core.view.load();
        let found = view.get(name).or_else(|| view.by_id(name.parse().ok()?));
        let seen = found.filter(|view| self.principal.sees(view.service().spec.tenant.as_deref()));
        seen.cloned().ok_or_else(|| missing(name))
    }

    /// The revision that readers see now; it changes whenever a declaration or
    /// what an instance publishes does. Costs nanoseconds.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.core.view.load().revision()
    }

    /// Every service that the principal may see, by name, at one moment.
    #[must_use]
    pub fn snapshot(&self) -> (Revision, Vec<Arc<ServiceView>>) {
        let view = self.core.view.load();
        let seen = view.services().filter(|view| self.principal.sees(view.service().spec.tenant.as_deref()));
        (view.revision(), seen.cloned().collect())
    }

    /// One page of the services that `query` asks for.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a limit out of range or a
    /// cursor of another query.
    pub fn services(&self, query: &Query) -> Result<Page<Arc<ServiceView>>> {
        match &self.principal.tenant {
            None => self.core.view.load().find(query),
            Some(tenant) => {
                let own = Query { tenant: Some(tenant.clone()), ..query.clone() };
                if query.tenant.as_ref().is_some_and(|asked| asked != tenant) {
                    let revision = self.core.view.load().revision();
                    return Ok(Page { items: Vec::new(), next_cursor: None, revision });
                }
                self.core.view.load().find(&own)
            }
        }
    }

    /// The registry in numbers, as far as the principal may see it.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let view = self.core.view.load();
        let seen = view.services().filter(|view| self.principal.sees(view.service().spec.tenant.as_deref()));
        Overview {
            dropped_journal_entries: self.core.recorder.dropped(),
            self_preservation: self.core.guard.holds(),
            ..Overview::of(view.revision(), seen)
        }
    }

    /// Everything that changes from where another stream of this process stood.
    /// The stream tells the reader to resync if that is too long ago, or if the
    /// cursor is of another process.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for principals of one tenant.
    pub fn watch_after(&self, cursor: &EventCursor) -> Result<EventStream> {
        self.may_watch()?;
        Ok(self.core.events.subscribe_after(cursor))
    }

    fn may_watch(&self) -> Result<()> {
        match self.principal.tenant {
            None => Ok(()),
            Some(_) => Err(Error::unsupported("events are not yet told apart by tenant")),
        }
    }

    /// [`Registry::apply`], with the services as they are held in memory. In a
    /// task of its own: a caller that goes away in the middle of it must not
    /// leave a committed batch that no view shows.
    pub(crate) async fn change(&self, mutations: Vec<Mutation>) -> Result<Applied<Arc<ServiceView>>> {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let scoped = self.clone();
        let committing = async move { drop(done.send(scoped.commit(mutations).await)) };
        drop(self.core.tasks.spawn("commit", committing));
        outcome.await.unwrap_or_else(|_| Err(Error::unavailable("the registry is closing")))
    }

    async fn commit(&self, mutations: Vec<Mutation>) -> Result<Applied<Arc<ServiceView>>> {
        self.principal.require(Role::Admin, "change services")?;
        let registered = registered(&mutations);
        let applied = self.core.commit_together(&self.principal, mutations).await?;
        self.heard_of(&registered, &applied);
        Ok(applied)
    }

    /// What `mutations` come to, if the principal may make them.
    pub(crate) fn plan(&self, before: &View, mutations: Vec<Mutation>) -> Result<Plan> {
        mutations.iter().try_for_each(|mutation| self.may_write(mutation))?;
        let (principal, config) = (self.acting(), &self.core.config);
        let plan = plan(before, mutations, &principal, &config.limits)?;
        refuse_new_commands(before, &plan.deltas, &principal, &config.access)?;
        refuse_unreachable(before, &plan.deltas, &principal, &config.egress)?;
        Ok(plan)
    }

    /// The principal as the store sees it: to a Machina that is followed, whoever
    /// acts here acts from outside.
    fn acting(&self) -> Principal {
        let principal = Principal::clone(&self.principal);
        if self.core.is_follower { principal.remote() } else { principal }
    }

    fn may_write(&self, mutation: &Mutation) -> Result<()> {
        let Some(tenant) = &self.principal.tenant else { return Ok(()) };
        let name = mutation.service();
        if let Some(view) = self.core.view.load().get(name.as_str())
            && !self.principal.sees(view.service().spec.tenant.as_deref())
        {
            return Err(no_service(name));
        }
        match mutation {
            Mutation::Register(spec) | Mutation::Put(spec) | Mutation::Update { spec, .. }
                if spec.tenant.as_ref() != Some(tenant) =>
            {
                Err(Error::forbidden(format!(
                    "`{}` may only write services of the tenant `{tenant}`",
                    self.principal.id
                )))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Registry for Scoped {
    async fn apply(&self, mutations: Vec<Mutation>) -> Result<Applied> {
        let Applied { revision, services } = self.change(mutations).await?;
        let services = services.iter().map(|view| ServiceReport::from(&**view)).collect();
        Ok(Applied { revision, services })
    }

    async fn get(&self, name: &str) -> Result<ServiceReport> {
        Ok(ServiceReport::from(&*self.service(name)?))
    }

    async fn find(&self, query: &Query) -> Result<Page<ServiceReport>> {
        Ok(self.services(query)?.map(|view| ServiceReport::from(&*view)))
    }

    async fn tools(&self, query: &ToolQuery) -> Result<ToolPage> {
        let mut query = query.clone();
        if let Some(service) = &mut query.service {
            *service = self.service(service)?.service().name().to_string();
        }
        query.page(&self.core.view.load(), &|view| self.principal.sees(view.service().spec.tenant.as_deref()))
    }

    async fn tool(&self, service: &str, tool: &str) -> Result<ToolReport> {
        let view = self.service(service)?;
        let offered = view.tool(tool).ok_or_else(|| no_tool(&view, tool))?;
        Ok(ToolReport::of(view.service().name(), &offered.tool, None))
    }

    async fn find_tools(&self, text: &str, limit: usize) -> Result<Vec<ToolReport>> {
        self.search(text, limit, None)
    }

    async fn health(&self, name: &str) -> Result<ServiceHealth> {
        let view = self.service(name)?;
        let mut health = ServiceHealth::from(&*view);
        for (instance, (_, seen)) in health.instances.iter_mut().zip(view.instances()) {
            instance.stderr_tail = seen.cell.stderr_tail();
            if let Some(session) = self.core.sessions.peek(instance.id) {
                instance.process_id = session.process_id();
                instance.stderr_tail = session.stderr_tail();
            }
        }
        Ok(health)
    }

    async fn watch(&self, since: Option<Revision>) -> Result<EventStream> {
        self.may_watch()?;
        Ok(match since {
            Some(revision) if revision > self.core.view.load().revision() => self.core.events.subscribe_anew(),
            Some(revision) => self.core.events.subscribe_since(revision),
            None => self.core.events.subscribe(),
        })
    }

    async fn groups(&self) -> Result<Vec<GroupReport>> {
        Ok(Self::groups(self).iter().map(|group| self.group_report(group)).collect())
    }

    async fn group(&self, name: &str) -> Result<GroupReport> {
        Ok(self.group_report(&*Self::group(self, name)?))
    }

    async fn put_group(&self, spec: GroupSpec, expected: Option<Revision>, create_only: bool) -> Result<GroupReport> {
        let group = Self::put_group(self, spec, expected, create_only).await?;
        Ok(self.group_report(&group))
    }

    async fn remove_group(&self, name: &str, expected: Option<Revision>) -> Result<Revision> {
        Self::remove_group(self, name, expected).await
    }
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("no service is named `{}`", name.escape_debug()))
        .with(|context| context.service = Some(name.to_owned()))
}

pub(super) fn no_tool(view: &ServiceView, tool: &str) -> Error {
    let name = view.service().name();
    let wanted = tool.to_lowercase();
    let near: Vec<&str> = view
        .tools()
        .iter()
        .map(|offered| offered.tool.name().as_str())
        .filter(|known| known.to_lowercase().contains(&wanted) || wanted.contains(&known.to_lowercase()))
        .take(3)
        .collect();
    let hint = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) };
    Error::not_found(format!("`{name}` offers no tool named `{}`{hint}", tool.escape_debug())).with(|context| {
        context.service = Some(name.to_string());
        context.tool = Some(tool.to_owned());
    })
}
