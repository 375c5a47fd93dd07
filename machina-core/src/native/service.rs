//! The handle with which a program attaches its functions to a service.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::tool::NativeTool;
use crate::core::Core;
use crate::error::{ErrorKind, Result};
use crate::machina::Machina;
use crate::model::{Endpoint, Instance, InstanceId, ServiceName, ServiceSpec, Tool};
use crate::view::ServiceView;
use crate::write::Mutation;

/// How often the declaration is made anew when someone else changes it meanwhile.
const ATTEMPTS_MAX: u32 = 5;

/// How long it may take until readers see what was attached, and how often that is
/// looked at.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
const KNOWN_STEP: Duration = Duration::from_millis(2);

/// The functions that this process has for one service. Cheap to clone; every
/// handle for a name is on the same functions. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct NativeService {
    machina: Machina,
    name: ServiceName,
}

impl Machina {
    /// The functions that this process has for the service `name`: attach them
    /// with [`NativeService::put`], and declare the service with
    /// [`NativeService::register`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use machina_core::{CallContext, CallOptions, Machina, NativeTool, ToolCall};
    /// use serde_json::{Map, Value, json};
    ///
    /// let machina = Machina::builder().open().await?;
    /// let pricing = machina.native("pricing")?;
    /// pricing.put(
    ///     NativeTool::new("quote", json!({"type": "object"}), |_: Map<String, Value>, _: CallContext| async {
    ///         Ok::<_, String>(json!({"price": 12}))
    ///     })
    ///     .description("What it costs."),
    /// )?;
    /// pricing.register().await?;
    ///
    /// let call: ToolCall = serde_json::from_value(json!({"service": "pricing", "tool": "quote"})).unwrap();
    /// let answer = machina.call(&call, &CallOptions::default()).await?;
    /// assert_eq!(answer.result.text(), r#"{"price":12}"#);
    /// machina.close().await;
    /// # Ok::<(), machina_core::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when `name` is not the name of a service.
    pub fn native(&self, name: &str) -> Result<NativeService> {
        Ok(NativeService { machina: self.clone(), name: ServiceName::new(name)? })
    }
}

impl NativeService {
    /// The name of the service.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Attaches a tool, in the place of the one of its name if there is one. Where
    /// the service is declared, readers see it within moments; after
    /// [`NativeService::register`] they do at once.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a definition that is none, naming the
    /// field; [`Overloaded`](ErrorKind::Overloaded) beyond 1000 tools;
    /// [`Unsupported`](ErrorKind::Unsupported) when a connector of the program's own
    /// handles `in_process` endpoints.
    pub fn put(&self, tool: NativeTool) -> Result<()> {
        self.core().natives.attach(&self.name)?.put(tool)?;
        self.changed();
        Ok(())
    }

    /// Takes a tool away; calls of it that run go on. Says whether there was one.
    pub fn remove(&self, tool: &str) -> bool {
        let removed = self.core().natives.find(&self.name).is_some_and(|functions| functions.remove(tool));
        if removed {
            self.changed();
        }
        removed
    }

    /// The tools that are attached, by name.
    #[must_use]
    pub fn tools(&self) -> Vec<Arc<Tool>> {
        self.core().natives.find(&self.name).map(|functions| functions.tools()).unwrap_or_default()
    }

    /// Declares the service, if it is not declared yet, and makes its tools known:
    /// when this returns, they can be found and called. What is declared already
    /// stays as it is and gets an `in_process` instance if it has none. May be
    /// called again.
    ///
    /// # Errors
    /// Whatever [`Machina::apply`] says.
    pub async fn register(&self) -> Result<Arc<ServiceView>> {
        self.core().natives.attach(&self.name)?;
        let mut attempt = 1;
        loop {
            match self.declare().await {
                Err(error) if error.kind() == ErrorKind::Conflict && attempt < ATTEMPTS_MAX => attempt += 1,
                declared => break declared?,
            }
        }
        self.made_known().await
    }

    /// The same with this declaration, in the place of any there is: description,
    /// tags, policies, further instances. An `in_process` instance is added if it
    /// has none.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when `spec` is of another name; whatever
    /// [`Machina::apply`] says.
    pub async fn register_as(&self, mut spec: ServiceSpec) -> Result<Arc<ServiceView>> {
        if spec.name != self.name {
            let detail = format!("must be `{}`, whose functions these are, is `{}`", self.name, spec.name);
            return Err(crate::Error::invalid_field("name", detail));
        }
        self.core().natives.attach(&self.name)?;
        if !is_native(&spec) {
            spec.instances.push(Instance::new(Endpoint::InProcess));
        }
        self.machina.apply(vec![Mutation::Put(spec)]).await?;
        self.made_known().await
    }

    /// Takes all functions away: from now on this process has none for the service.
    /// Calls that run may end. The declaration stays, for there may be other
    /// instances and other processes; [`Machina::deregister`] ends that.
    pub async fn withdraw(&self) {
        let core = self.core();
        core.natives.withdraw(&self.name);
        for instance in self.instances() {
            if let Some(session) = core.sessions.peek(instance) {
                core.sessions.retire(instance, &session, core.config.sessions.close_timeout);
            }
            core.probe(instance).await;
        }
    }

    fn core(&self) -> &Arc<Core> {
        &self.machina.system().core
    }

    async fn declare(&self) -> Result<()> {
        let mutation = match self.machina.get(self.name.as_str()) {
            Some(view) if is_native(&view.service().spec) => return Ok(()),
            Some(view) => {
                let spec = view.service().spec.clone().instance(Instance::new(Endpoint::InProcess));
                Mutation::Update { name: self.name.clone(), spec, expected: Some(view.service().revision) }
            }
            None => {
                Mutation::Register(ServiceSpec::new(self.name.as_str())?.instance(Instance::new(Endpoint::InProcess)))
            }
        };
        self.machina.apply(vec![mutation]).await.map(drop)
    }

    /// Has the functions listed now, and not when the monitor comes to it.
    async fn made_known(&self) -> Result<Arc<ServiceView>> {
        self.changed();
        let until = Instant::now() + KNOWN_WITHIN;
        loop {
            for instance in self.instances() {
                self.core().probe(instance).await;
            }
            if self.is_known() || Instant::now() > until {
                break;
            }
            // A probe of the monitor is listing them at this moment.
            tokio::time::sleep(KNOWN_STEP).await;
        }
        // What is shown now may be just being shown: the search comes after the view.
        drop(self.core().committing.lock().await);
        let gone = || crate::Error::conflict(format!("`{}` was removed meanwhile", self.name));
        self.machina.get(self.name.as_str()).ok_or_else(gone)
    }

    /// Whether readers see the functions as they are attached; also where another
    /// replica lists them.
    fn is_known(&self) -> bool {
        let Some(view) = self.machina.get(self.name.as_str()) else { return true };
        let attached: HashSet<_> = self.tools().iter().map(|tool| tool.hash().to_owned()).collect();
        view.instances().filter(|(instance, _)| instance.endpoint == Endpoint::InProcess).all(|(instance, seen)| {
            let published = seen.definitions.iter().flat_map(|definitions| &definitions.tools);
            !self.core().replicas.owns(instance.id)
                || !view.service().spec.admin_state.is_probed()
                || !instance.admin_state.is_probed()
                || published.map(|tool| tool.hash().to_owned()).collect::<HashSet<_>>() == attached
        })
    }

    fn instances(&self) -> Vec<InstanceId> {
        let view = self.machina.get(self.name.as_str());
        let instances = view.iter().flat_map(|view| view.instances()).map(|(instance, _)| instance);
        instances.filter(|instance| instance.endpoint == Endpoint::InProcess).map(|instance| instance.id).collect()
    }

    /// What the service publishes is another thing than is known.
    fn changed(&self) {
        let Some(view) = self.machina.get(self.name.as_str()) else { return };
        for (instance, seen) in view.instances().filter(|(instance, _)| instance.endpoint == Endpoint::InProcess) {
            seen.cell.doubt_definitions();
            self.core().monitor.hint(instance.id);
        }
    }
}

fn is_native(spec: &ServiceSpec) -> bool {
    spec.instances.iter().any(|instance| instance.endpoint == Endpoint::InProcess)
}
