//! Searching for tools, among all that a principal may see or those of a group.

use super::scoped::Scoped;
use crate::error::{Error, Result};
use crate::model::{Group, ServiceName};
use crate::report::ToolReport;

/// How many tools one search returns at most.
const FOUND_MAX: usize = 100;

impl Scoped {
    /// [`find_tools`](crate::Registry::find_tools) among the tools of a group.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for an empty text or a limit out of range.
    pub fn find_group_tools(&self, group: &Group, text: &str, limit: usize) -> Result<Vec<ToolReport>> {
        self.search(text, limit, Some(group))
    }

    pub(super) fn search(&self, text: &str, limit: usize, group: Option<&Group>) -> Result<Vec<ToolReport>> {
        if text.trim().is_empty() {
            return Err(Error::invalid_field("text", "must say what the tool is to do"));
        }
        if !(1..=FOUND_MAX).contains(&limit) {
            return Err(Error::invalid_field("limit", format!("must be 1 to {FOUND_MAX}, is {limit}")));
        }
        let view = self.core.view();
        let admits = |name: &ServiceName| {
            let member = group.is_none_or(|group| group.has_member(name.as_str()));
            member
                && view.get(name.as_str()).is_some_and(|view| {
                    let spec = &view.service().spec;
                    spec.admin_state.admits_calls() && self.principal.sees(spec.tenant.as_deref())
                })
        };
        // A group may select some tools of a service only: what it leaves out must take no place.
        let wanted = if group.is_some() { usize::MAX } else { limit };
        let mut hits = self.core.index.search(text, wanted, &admits);
        if let Some(group) = group {
            hits.retain(|hit| group.selects(&hit.service, hit.tool.name().as_str()));
            hits.truncate(limit);
        }
        Ok(hits.iter().map(|hit| ToolReport::of(&hit.service, &hit.tool, Some(hit.score))).collect())
    }
}
