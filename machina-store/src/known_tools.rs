//! The instances of a service publish the same tools, as a rule: each is parsed
//! once and kept once, however many publish it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use machina_core::Tool;

/// Tools by the hash of their definitions' text.
#[derive(Debug, Default)]
pub(crate) struct KnownTools {
    tools: HashMap<u64, Arc<Tool>>,
    hasher: RandomState,
}

impl KnownTools {
    /// The tool whose definition is this, word for word.
    pub(crate) fn get(&self, definition: &str) -> Option<Arc<Tool>> {
        let tool = self.tools.get(&self.hasher.hash_one(definition))?;
        (tool.definition_text() == definition).then(|| Arc::clone(tool))
    }

    /// Keeps the tool that was made of this definition.
    pub(crate) fn put(&mut self, definition: &str, tool: &Arc<Tool>) {
        self.tools.insert(self.hasher.hash_one(definition), Arc::clone(tool));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_equal_word_for_word_is_known() {
        let text = |x: u32| format!(r#"{{"name":"a","x":{x},"inputSchema":{{"type":"object"}}}}"#);
        let tool = Arc::new(Tool::parse(serde_json::from_str(&text(1)).unwrap()).unwrap());
        let mut known = KnownTools::default();
        assert!(known.get(&text(1)).is_none());
        known.put(&text(1), &tool);
        assert!(Arc::ptr_eq(&known.get(&text(1)).unwrap(), &tool));
        // The hash of a tool does not count fields that nobody knows; its text does.
        assert!(known.get(&text(2)).is_none());
        known.put(&text(3), &tool);
        assert!(known.get(&text(3)).is_none(), "the text is what counts, not its hash");
    }
}
