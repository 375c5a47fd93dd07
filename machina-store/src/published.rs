//! What instances publish, taken apart for the tables and put together from their
//! rows: the same in every database, word for word. Refuses to let one definition
//! hide another.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use machina_core::{Definitions, InstanceId, RejectedTool, Result, Timestamp, Tool};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::known_tools::KnownTools;
use crate::record::{Columns, get_json, get_parsed, json};

/// Definitions but for their lists.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) protocol_version: String,
    pub(crate) server_info: Value,
    pub(crate) instructions: Option<String>,
    pub(crate) capabilities: Value,
    pub(crate) listed_at: Timestamp,
}

impl Head {
    fn without_lists(self) -> Definitions {
        Definitions {
            protocol_version: self.protocol_version,
            server_info: self.server_info,
            instructions: self.instructions,
            capabilities: self.capabilities,
            tools: Vec::new(),
            rejected: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            resource_templates: Vec::new(),
            listed_at: self.listed_at,
        }
    }
}

/// What is published besides tools, or was rejected of them: a row.
#[derive(Debug, Serialize)]
pub(crate) struct Other<'a> {
    pub(crate) kind: &'static str,
    pub(crate) position: usize,
    pub(crate) name: Option<&'a str>,
    pub(crate) definition: String,
}

/// Everything that is published besides tools, and what was rejected of them.
pub(crate) fn others(definitions: &Definitions) -> impl Iterator<Item = Result<Other<'_>>> {
    let lists = [
        ("prompt", &definitions.prompts),
        ("resource", &definitions.resources),
        ("resource_template", &definitions.resource_templates),
    ];
    let listed = lists.into_iter().flat_map(|(kind, list)| {
        list.iter().enumerate().map(move |(position, one)| {
            Ok(Other { kind, position, name: one["name"].as_str(), definition: json(one)? })
        })
    });
    let rejected = definitions.rejected.iter().enumerate().map(|(position, one)| {
        Ok(Other { kind: "rejected_tool", position, name: one.name.as_deref(), definition: json(one)? })
    });
    listed.chain(rejected)
}

/// What instances publish, in the making. Rows of instances that were not begun
/// are left out.
#[derive(Debug, Default)]
pub(crate) struct Publishing {
    found: HashMap<InstanceId, Definitions>,
    known: KnownTools,
}

impl Publishing {
    /// Begins with the instance `id`.
    pub(crate) fn begin(&mut self, id: InstanceId, head: Head) {
        self.found.insert(id, head.without_lists());
    }

    /// Adds the next tool of an instance. One that an earlier version accepted and
    /// this one does not is rejected like any other; it hides none of its siblings.
    pub(crate) fn add_tool(&mut self, id: InstanceId, name: &str, hash: &str, definition: &str) {
        let Some(definitions) = self.found.get_mut(&id) else { return };
        if let Some(tool) = self.known.get(definition) {
            definitions.tools.push(tool);
            return;
        }
        match Tool::kept(definition, hash).map(Arc::new) {
            Ok(tool) => {
                self.known.put(definition, &tool);
                definitions.tools.push(tool);
            }
            Err(error) => {
                let (name, reason) = (Some(name.to_owned()), error.message().to_owned());
                definitions.rejected.push(RejectedTool { name, reason });
            }
        }
    }

    /// Adds the next of a list of an instance.
    pub(crate) fn add_other(&mut self, row: &impl Columns) -> Result<()> {
        let Some(definitions) = self.found.get_mut(&get_parsed(row, "instance_id")?) else { return Ok(()) };
        match row.text("kind")? {
            "prompt" => definitions.prompts.push(get_json(row, "definition")?),
            "resource" => definitions.resources.push(get_json(row, "definition")?),
            "resource_template" => definitions.resource_templates.push(get_json(row, "definition")?),
            _ => definitions.rejected.push(get_json(row, "definition")?),
        }
        Ok(())
    }

    /// What every instance publishes.
    pub(crate) fn finish(self) -> BTreeMap<InstanceId, Arc<Definitions>> {
        self.found.into_iter().map(|(id, definitions)| (id, Arc::new(definitions))).collect()
    }
}
