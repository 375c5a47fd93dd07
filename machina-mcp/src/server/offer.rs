//! What hosts are offered, shared by all of them: how it appears, and the tables
//! of all audiences.

use std::sync::Arc;

use super::audience::{Audience, PerAudience};
use super::changes::{Kinds, Lists};
use super::exposure::{Exposure, ToolMode};
use super::flat::ToolTable;
use super::prompts::PromptTable;
use super::resources::ResourceTable;

/// The tools, prompts and resources that hosts are offered.
#[derive(Debug)]
pub(crate) struct Offer {
    usual: Exposure,
    tools: PerAudience<ToolTable>,
    prompts: PerAudience<PromptTable>,
    resources: PerAudience<ResourceTable>,
}

impl Offer {
    /// What `exposure` says, where a group does not say otherwise.
    pub(crate) fn new(exposure: Exposure) -> Arc<Self> {
        let (tools, prompts, resources) = (PerAudience::new(), PerAudience::new(), PerAudience::new());
        Arc::new(Self { usual: exposure, tools, prompts, resources })
    }

    /// Whether the tools of services appear by themselves.
    pub(super) fn is_flat(&self, audience: &Audience) -> bool {
        audience.exposure(self.usual).mode == ToolMode::Flat
    }

    /// Whether the names of earlier gateways are listed.
    pub(super) fn lists_aliases(&self) -> bool {
        self.usual.aliases
    }

    /// The tools of flat mode.
    pub(super) fn tools(&self, audience: &Audience) -> Arc<ToolTable> {
        let prefix = audience.exposure(self.usual).prefix;
        self.tools.get(audience, |services| ToolTable::new(audience, services, prefix))
    }

    /// The prompts of flat mode.
    pub(super) fn prompts(&self, audience: &Audience) -> Arc<PromptTable> {
        let prefix = audience.exposure(self.usual).prefix;
        self.prompts.get(audience, |services| PromptTable::new(audience, services, prefix))
    }

    /// The resources of either mode.
    pub(super) fn resources(&self, audience: &Audience) -> Arc<ResourceTable> {
        let exposure = audience.exposure(self.usual);
        self.resources.get(audience, |services| ResourceTable::new(audience, services, exposure))
    }

    /// Which of the lists may come to be others.
    pub(super) fn changing(&self, audience: &Audience) -> Kinds {
        let flat = self.is_flat(audience);
        Kinds { tools: flat, prompts: flat, resources: true }
    }

    /// What a host can read now.
    pub(super) fn lists(&self, audience: &Audience) -> Lists {
        let resources = self.resources(audience);
        let (tools, prompts) = match self.is_flat(audience) {
            true => (self.tools(audience).listing.digest(), self.prompts(audience).listing.digest()),
            // Machina's own never change.
            false => (0, 0),
        };
        Lists {
            tools,
            prompts,
            // Templates belong to the same notification.
            resources: resources.resources.digest() ^ resources.templates.digest().rotate_left(1),
        }
    }
}
