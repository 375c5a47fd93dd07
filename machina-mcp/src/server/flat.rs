//! Flat mode: every tool of every service as a tool of this server, word for
//! word but for its name. A list is read from what is known: an upstream that is
//! slow or dead keeps its last known tools, and delays nothing.

use std::collections::HashMap;
use std::sync::Arc;

use machina_core::{ServiceName, ServiceView, Tool};

use super::audience::{Audience, in_use};
use super::exposure::ToolPrefix;
use super::flat_names::{Original, names};
use super::listing::Listing;
use crate::client::param_headers::{self, ParamHeader};

/// The tools that one audience sees at one revision.
#[derive(Debug)]
pub(super) struct ToolTable {
    /// By service, and in the order of its server.
    pub(super) listing: Arc<Listing>,
    by_name: HashMap<String, Entry>,
}

/// One tool.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) service: ServiceName,
    pub(super) tool: Arc<Tool>,
    /// The arguments that hosts repeat in headers, if there are any.
    pub(super) marked: Option<Arc<[ParamHeader]>>,
}

impl ToolTable {
    pub(super) fn new(audience: &Audience, services: &[Arc<ServiceView>], prefix: ToolPrefix) -> Self {
        let tools: Vec<(&ServiceName, usize, &Arc<Tool>)> = services
            .iter()
            .filter(|view| in_use(view))
            .flat_map(|view| {
                let tools = view.tools().iter().enumerate();
                tools.map(|(place, offered)| (view.service().name(), place, &offered.tool))
            })
            .filter(|(service, _, tool)| audience.has_tool(service, tool.name().as_str()))
            .collect();
        let originals: Vec<Original<'_>> = tools
            .iter()
            .map(|(service, _, tool)| Original { service: service.as_str(), name: tool.name().as_str() })
            .collect();
        let mut listing = Listing::new("tools");
        let mut by_name = HashMap::with_capacity(tools.len());
        for (name, (service, place, tool)) in names(prefix, &originals).into_iter().zip(&tools) {
            listing.push(service, *place, &tool.renamed(&name));
            let marked = param_headers::of_schema_text(tool.input_schema_text());
            let marked = Some(marked).filter(|marked| !marked.is_empty()).map(Arc::from);
            by_name.insert(name, Entry { service: (*service).clone(), tool: Arc::clone(tool), marked });
        }
        Self { listing: listing.finished(), by_name }
    }

    /// The tool of this name.
    pub(super) fn resolve(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name)
    }
}
