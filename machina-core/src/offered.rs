//! The tools of a service: the union over its instances, without those that are
//! withheld because the operator pinned another definition. Decides nothing else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::model::{Definitions, InstanceId, Pinning, Tool, ToolHints, ToolName};

/// What a service offers, as far as its instances have said.
#[derive(Debug, Default)]
pub(crate) struct OfferedTools {
    list: Vec<OfferedTool>,
    by_name: HashMap<ToolName, u32, FixedState>,
    /// Instances (by bit) whose definitions are known.
    known: u64,
    /// Instances (by bit) that publish another tool than was pinned.
    drifted: u64,
    quarantined: Vec<QuarantinedTool>,
}

/// A tool that an instance publishes and that is not offered, because it is not
/// the one that the operator pinned.
#[derive(Debug, Clone)]
pub struct QuarantinedTool {
    /// The tool as it is published now.
    pub tool: Arc<Tool>,
    /// The instance that publishes it.
    pub instance: InstanceId,
    /// The hash that was pinned; `None` for a tool that was not.
    pub pinned: Option<String>,
}

/// A tool, and which instances offer it.
#[derive(Debug, Clone)]
pub struct OfferedTool {
    /// The tool, as the first instance that offers it publishes it.
    pub tool: Arc<Tool>,
    offered_by: u64,
    hints: ToolHints,
    is_alike: bool,
}

impl OfferedTool {
    /// What all instances that offer it say of its effects: a call may go to any of them.
    pub(crate) const fn hints(&self) -> ToolHints {
        self.hints
    }

    /// Whether every instance that offers it publishes the definition with this hash.
    pub(crate) fn is_as_pinned(&self, hash: &str) -> bool {
        self.is_alike && self.tool.hash() == hash
    }
}

impl OfferedTools {
    /// The tools of instances that publish these definitions, in the order of the
    /// first that publishes each.
    pub(crate) fn of<'a>(
        instances: impl Iterator<Item = (InstanceId, Option<&'a Definitions>)>,
        pins: &BTreeMap<String, String>,
        pinning: Pinning,
    ) -> Self {
        let mut tools = Self::default();
        for (index, (instance, definitions)) in instances.enumerate() {
            let Some(definitions) = definitions else { continue };
            tools.known |= bit(index);
            for tool in &definitions.tools {
                let pinned = pins.get(tool.name().as_str());
                if pinned.is_some_and(|pin| pin != tool.hash()) {
                    tools.drifted |= bit(index);
                }
                if pinning == Pinning::Strict && pinned.map(String::as_str) != Some(tool.hash()) {
                    let (tool, pinned) = (Arc::clone(tool), pinned.cloned());
                    tools.quarantined.push(QuarantinedTool { tool, instance, pinned });
                } else {
                    tools.add(index, tool);
                }
            }
        }
        tools.list.shrink_to_fit();
        tools.by_name.shrink_to_fit();
        tools
    }

    fn add(&mut self, index: usize, tool: &Arc<Tool>) {
        let next = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let place = *self.by_name.entry(tool.name().clone()).or_insert(next);
        if place == next {
            let (hints, tool) = (tool.hints(), Arc::clone(tool));
            self.list.push(OfferedTool { tool, offered_by: 0, hints, is_alike: true });
        }
        let offered = &mut self.list[place as usize];
        offered.offered_by |= bit(index);
        offered.hints.read_only &= tool.hints().read_only;
        offered.hints.idempotent &= tool.hints().idempotent;
        offered.is_alike &= tool.hash() == offered.tool.hash();
    }

    pub(crate) fn list(&self) -> &[OfferedTool] {
        &self.list
    }

    pub(crate) fn get(&self, name: &str) -> Option<&OfferedTool> {
        self.by_name.get(name).map(|index| &self.list[*index as usize])
    }

    pub(crate) fn quarantined(&self) -> &[QuarantinedTool] {
        &self.quarantined
    }

    /// Whether it is known, for at least one instance, what it publishes.
    pub(crate) fn is_known(&self) -> bool {
        self.known != 0
    }

    /// Whether the instance at `index` publishes another tool than was pinned.
    pub(crate) fn is_drifted(&self, index: usize) -> bool {
        self.drifted & bit(index) != 0
    }

    /// Whether the instance at `index` offers `tool`; `true` while it is not known.
    pub(crate) fn may_offer(&self, index: usize, tool: &str) -> bool {
        let bit = bit(index);
        self.known & bit == 0 || self.get(tool).is_some_and(|tool| tool.offered_by & bit != 0)
    }
}

/// The bit that stands for an instance; none for those beyond the 64 that the
/// configuration allows, of which it is then never known what they offer.
fn bit(index: usize) -> u64 {
    u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or(0)
}
