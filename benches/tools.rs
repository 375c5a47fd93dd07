//! Finding tools by words, among 1,000 and 15,000.

use std::sync::Arc;

use machina_benches::{compare, heading};
use machina_core::{LexicalIndex, ServiceName, Tool, ToolIndex};
use serde_json::json;

const VERBS: [&str; 8] = ["create", "list", "delete", "update", "search", "export", "import", "describe"];
const THINGS: [&str; 12] =
    ["file", "issue", "invoice", "user", "message", "branch", "table", "image", "event", "order", "key", "page"];

fn tool(number: usize) -> Arc<Tool> {
    let (verb, thing) = (VERBS[number % VERBS.len()], THINGS[number / VERBS.len() % THINGS.len()]);
    let definition = json!({"name": format!("{verb}_{thing}_{number}"),
        "description": format!("Can {verb} one {thing} of the account, with filters on date, owner and state."),
        "inputSchema": {"type": "object", "properties": {"id": {}, "owner": {}, "state": {}}}});
    Arc::new(Tool::parse(definition).expect("valid"))
}

fn filled(count: usize) -> LexicalIndex {
    let index = LexicalIndex::default();
    for service in 0..count / 25 {
        let name = ServiceName::new(&format!("service-{service}")).expect("valid");
        let tools: Vec<_> = (0..25).map(|number| tool(service * 25 + number)).collect();
        index.put(&name, &[], &tools);
    }
    index
}

fn main() {
    heading("find the 5 tools that fit best", "the same words in 1,000 tools");
    let (small, large) = (filled(1_000), filled(15_000));
    for words in ["delete an invoice", "search messages by owner and date", "export_table_9"] {
        compare(words, || small.search(words, 5, &|_| true), || large.search(words, 5, &|_| true));
    }
    heading("replace the 25 tools of a service", "one search in 1,000 tools");
    let name = ServiceName::new("service-7").expect("valid");
    let tools: Vec<_> = (0..25).map(tool).collect();
    compare("among 15,000", || small.search("delete an invoice", 5, &|_| true), || large.put(&name, &[], &tools));
}
