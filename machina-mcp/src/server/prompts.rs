//! The prompts of services, word for word but for their names, which follow the
//! rule of tools.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use machina_core::{ServiceName, ServiceView};

use super::audience::{Audience, in_use};
use super::exposure::ToolPrefix;
use super::flat_names::{Original, names};
use super::listing::{Listing, Renamed};
use super::published::{Kind, Published, completes, published};

/// The prompts that one audience sees at one revision.
#[derive(Debug)]
pub(super) struct PromptTable {
    pub(super) listing: Arc<Listing>,
    by_name: HashMap<String, Prompt>,
    /// Services that complete arguments of prompts and of resource templates.
    completing: HashSet<ServiceName>,
}

/// One prompt.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub(super) service: ServiceName,
    /// As its server calls it.
    pub(super) name: String,
}

impl PromptTable {
    pub(super) fn new(audience: &Audience, services: &[Arc<ServiceView>], prefix: ToolPrefix) -> Self {
        let whole = || services.iter().filter(|view| in_use(view) && audience.has_all_of(view.service().name()));
        let prompts: Vec<(&ServiceName, usize, Published<'_>)> = whole()
            .flat_map(|view| {
                let prompts = published(view, Kind::Prompt).into_iter().enumerate();
                prompts.map(|(place, prompt)| (view.service().name(), place, prompt))
            })
            .collect();
        let originals: Vec<Original<'_>> = prompts
            .iter()
            .map(|(service, _, prompt)| Original { service: service.as_str(), name: prompt.key })
            .collect();
        let mut listing = Listing::new("prompts");
        let mut by_name = HashMap::with_capacity(prompts.len());
        for (name, (service, place, prompt)) in names(prefix, &originals).into_iter().zip(&prompts) {
            listing.push(service, *place, &Renamed { definition: prompt.definition, key: "name", value: &name });
            by_name.insert(name, Prompt { service: (*service).clone(), name: prompt.key.to_owned() });
        }
        let completing = whole().filter(|view| completes(view)).map(|view| view.service().name().clone());
        Self { listing: listing.finished(), by_name, completing: completing.collect() }
    }

    /// The prompt of this name.
    pub(super) fn resolve(&self, name: &str) -> Option<&Prompt> {
        self.by_name.get(name)
    }

    /// Whether `service` completes arguments; any at all, if none is named.
    pub(super) fn completes(&self, service: Option<&ServiceName>) -> bool {
        service.map_or(!self.completing.is_empty(), |service| self.completing.contains(service))
    }
}
