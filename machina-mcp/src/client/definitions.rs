//! What a server publishes, page by page and entry by entry: a malformed tool is
//! reported and never hides the others. Refuses endless lists, and lets go of an
//! entry that is too large before the next page comes: what one server can have
//! kept of itself is bounded by the count and the size of its entries.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use machina_core::{Definitions, Error, Phase, RejectedTool, Result, Tool};
use serde_json::Value;

use super::handshake::Greeting;
use super::wire::{METHOD_NOT_FOUND, Object};

/// The most tools, prompts, resources or templates of one server.
const ENTRIES_MAX: usize = 1_000;
/// The most bytes of JSON of one entry, and of what a server says about itself.
const ENTRY_BYTES_MAX: usize = 64 * 1024;
/// The most pages of one list.
const PAGES_MAX: usize = 100;
/// How many characters of a name are told of what is not taken.
const NAME_SHOWN_MAX: usize = 200;

/// Who can send a request of a list.
pub(crate) trait Lister {
    /// Sends `method` and returns its result.
    fn list(&self, method: &'static str, params: Object) -> impl Future<Output = Result<Value>> + Send;
}

/// Lists everything that the server said it has.
pub(crate) async fn list_all(lister: &impl Lister, greeting: &Greeting) -> Result<Definitions> {
    let has = |what: &str| greeting.capabilities.get(what).is_some_and(|c| !c.is_null() && c != &Value::Bool(false));
    // A server that says nothing about itself may still have tools.
    let silent = !["tools", "prompts", "resources"].iter().any(|what| has(what));
    let mut tools = Tools::default();
    if has("tools") || silent {
        match pages(lister, "tools/list", "tools").await {
            Ok(list) => tools.take(list),
            Err(error) if silent && error.context().upstream_code == Some(METHOD_NOT_FOUND) => {}
            Err(error) => return Err(error),
        }
    }
    let mut others = [("prompts/list", "prompts"), ("resources/list", "resources")].map(|l| (l, Vec::new()));
    for ((method, field), entries) in &mut others {
        if has(field) {
            *entries = secondary(lister, method, field).await?;
        }
    }
    let resource_templates = match has("resources") {
        true => secondary(lister, "resources/templates/list", "resourceTemplates").await?,
        false => Vec::new(),
    };
    let [(_, prompts), (_, resources)] = others;
    Ok(Definitions {
        protocol_version: greeting.dialect.version.clone(),
        server_info: greeting.server_info.clone(),
        instructions: greeting.instructions.clone(),
        capabilities: greeting.capabilities.clone(),
        tools: tools.accepted,
        rejected: tools.rejected,
        prompts,
        resources,
        resource_templates,
        listed_at: machina_core::now(),
    })
}

/// A list whose failure is no failure of the tools: what the server answers with
/// an error counts as empty. A broken connection is still an error.
async fn secondary(lister: &impl Lister, method: &'static str, field: &str) -> Result<Vec<Value>> {
    match pages(lister, method, field).await {
        Ok(List { entries, oversized, cut }) => {
            let left_out = oversized.into_iter().map(|(_, why)| why).chain(cut);
            left_out.for_each(|why| tracing::warn!(method, why, "a part of a list is not taken"));
            Ok(entries)
        }
        Err(error) if error.context().upstream_code.is_some() || error.kind() == machina_core::ErrorKind::Rejected => {
            tracing::debug!(%error, method, "a list is advertised but not available");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The entries of a list, and why it is not complete, if it is not.
#[derive(Default)]
struct List {
    entries: Vec<Value>,
    /// Of each entry that is too large its name, if it has one, and why.
    oversized: Vec<(Option<String>, String)>,
    cut: Option<String>,
}

impl List {
    fn len(&self) -> usize {
        self.entries.len() + self.oversized.len()
    }

    fn take(&mut self, entry: Value) {
        match bytes_of(&entry) {
            bytes if bytes > ENTRY_BYTES_MAX => {
                let why = format!("must have at most {ENTRY_BYTES_MAX} bytes of JSON, has {bytes}");
                self.oversized.push((name_of(&entry), why));
            }
            _ => self.entries.push(entry),
        }
    }
}

/// The length of `value` as JSON.
fn bytes_of(value: &Value) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).expect("values have a JSON form, and counting does not fail");
    counter.0
}

fn name_of(entry: &Value) -> Option<String> {
    Some(entry.get("name")?.as_str()?.chars().take(NAME_SHOWN_MAX).collect())
}

/// What a server says about itself, if that is not too much.
///
/// # Errors
/// [`Rejected`](machina_core::ErrorKind::Rejected), naming `field`.
pub(crate) fn modest(method: &str, field: &str, value: Value) -> Result<Value> {
    let bytes = bytes_of(&value);
    if bytes <= ENTRY_BYTES_MAX {
        return Ok(value);
    }
    let what = format!("`{field}` must have at most {ENTRY_BYTES_MAX} bytes of JSON, has {bytes}");
    Err(Error::rejected(format!("the answer to {method} is refused: {what}")).at(Phase::Answered))
}

async fn pages(lister: &impl Lister, method: &'static str, field: &str) -> Result<List> {
    let mut list = List::default();
    let mut cursors = HashSet::new();
    let mut params = Object::new();
    for _ in 0..PAGES_MAX {
        let mut page = lister.list(method, params.clone()).await?;
        let Some(Value::Array(new)) = page.get_mut(field).map(Value::take) else {
            return Err(Error::rejected(format!("the answer to {method} has no list `{field}`")));
        };
        let count = list.len() + new.len();
        let room = ENTRIES_MAX - list.len();
        new.into_iter().take(room).for_each(|entry| list.take(entry));
        if count > ENTRIES_MAX {
            let cut = format!("at most {ENTRIES_MAX} {field} are taken; the server lists {count} or more");
            return Ok(List { cut: Some(cut), ..list });
        }
        let Some(cursor) = page["nextCursor"].as_str().filter(|cursor| !cursor.is_empty()) else {
            return Ok(list);
        };
        if !cursors.insert(cursor.to_owned()) {
            let cut = format!("{method} gave the same cursor twice");
            return Ok(List { cut: Some(cut), ..list });
        }
        params.insert("cursor".into(), cursor.into());
    }
    Ok(List { cut: Some(format!("at most {PAGES_MAX} pages of {field} are taken")), ..list })
}

#[derive(Default)]
struct Tools {
    accepted: Vec<Arc<Tool>>,
    rejected: Vec<RejectedTool>,
}

impl Tools {
    fn take(&mut self, list: List) {
        let mut names = HashSet::new();
        for definition in list.entries {
            let name = name_of(&definition);
            match Tool::parse(definition) {
                Ok(tool) if names.insert(tool.name().clone()) => self.accepted.push(Arc::new(tool)),
                Ok(_) => self.reject(name, "another tool of this server has the same name"),
                Err(error) => self.reject(name, error.message()),
            }
        }
        for (name, why) in list.oversized {
            self.reject(name, &why);
        }
        if let Some(cut) = list.cut {
            self.reject(None, &cut);
        }
    }

    fn reject(&mut self, name: Option<String>, reason: &str) {
        self.rejected.push(RejectedTool { name, reason: reason.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::link::Dialect;
    use serde_json::json;
    use std::sync::Mutex;

    /// Answers from a script: per method, one value for each page; an integer is an error code.
    struct Script {
        pages: Vec<(&'static str, Value)>,
        asked: Mutex<Vec<String>>,
    }

    impl Lister for Script {
        async fn list(&self, method: &'static str, params: Object) -> Result<Value> {
            let cursor = params.get("cursor").and_then(Value::as_str).unwrap_or("-").to_owned();
            self.asked.lock().unwrap().push(format!("{method} {cursor}"));
            let wanted: usize = cursor.parse().unwrap_or(0);
            let answer = self.pages.iter().filter(|(m, _)| *m == method).nth(wanted).map(|(_, page)| page.clone());
            match answer.unwrap_or_else(|| json!(-32601)) {
                Value::Number(code) => Err(Error::rejected("no").with(|c| c.upstream_code = code.as_i64())),
                Value::Null => Err(Error::lost("gone")),
                page => Ok(page),
            }
        }
    }

    async fn list(capabilities: Value, pages: Vec<(&'static str, Value)>) -> (Result<Definitions>, Vec<String>) {
        let script = Script { pages, asked: Mutex::default() };
        let dialect = Dialect::legacy("2025-11-25");
        let greeting = Greeting { dialect, server_info: json!({"name": "s"}), capabilities, instructions: None };
        let definitions = list_all(&script, &greeting).await;
        (definitions, script.asked.into_inner().unwrap())
    }

    fn tool(name: &str) -> Value {
        json!({"name": name, "inputSchema": {"type": "object"}})
    }

    #[tokio::test]
    async fn one_malformed_tool_does_not_hide_the_others() {
        let tools = json!({"tools": [tool("a"), {"name": "b", "inputSchema": 5}, 7, tool("a"),
            {"name": "c", "inputSchema": {"properties": {}}, "x-unknown": {"z": 1, "a": 2}}]});
        let (definitions, _) = list(json!({"tools": {}}), vec![("tools/list", tools)]).await;
        let definitions = definitions.unwrap();
        let names: Vec<_> = definitions.tools.iter().map(|tool| tool.name().as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(definitions.tools[1].definition()["x-unknown"].to_string(), r#"{"z":1,"a":2}"#);
        let rejected: Vec<_> = definitions.rejected.iter().map(|r| (r.name.as_deref(), r.reason.as_str())).collect();
        assert_eq!(rejected[0].0, Some("b"));
        assert!(rejected[0].1.contains("inputSchema"), "{}", rejected[0].1);
        assert_eq!(rejected[1].0, None);
        assert_eq!(rejected[2], (Some("a"), "another tool of this server has the same name"));
    }

    #[tokio::test]
    async fn all_pages_are_read_and_only_advertised_lists() {
        let pages = vec![
            ("tools/list", json!({"tools": [tool("a")], "nextCursor": "1"})),
            ("tools/list", json!({"tools": [tool("b")], "nextCursor": ""})),
            ("prompts/list", json!({"prompts": [{"name": "p"}]})),
        ];
        let (definitions, asked) = list(json!({"tools": {}, "prompts": {}}), pages).await;
        assert_eq!(definitions.unwrap().tools.len(), 2);
        assert_eq!(asked, ["tools/list -", "tools/list 1", "prompts/list -"]);
    }

    #[tokio::test]
    async fn errors_of_resources_and_prompts_are_not_errors_of_the_tools() {
        let pages = vec![("tools/list", json!({"tools": [tool("a")]})), ("resources/list", json!(-32603))];
        let (definitions, asked) = list(json!({"tools": {}, "prompts": {}, "resources": {}}), pages).await;
        assert_eq!(definitions.unwrap().tools.len(), 1);
        assert_eq!(asked.len(), 4);
        let pages = vec![("tools/list", json!({"tools": []})), ("resources/list", json!(null))];
        assert!(list(json!({"tools": {}, "resources": {}}), pages).await.0.is_err(), "a broken connection is an error");
        assert!(list(json!({"tools": {}}), vec![("tools/list", json!({"tools": 1}))]).await.0.is_err());
    }

    #[tokio::test]
    async fn a_server_that_advertises_nothing_is_asked_for_tools_and_may_have_none() {
        assert!(list(json!(null), vec![]).await.0.unwrap().tools.is_empty());
        let pages = vec![("tools/list", json!({"tools": [tool("a")]}))];
        assert_eq!(list(json!({}), pages).await.0.unwrap().tools.len(), 1);
        assert!(list(json!({"tools": {}}), vec![]).await.0.is_err(), "advertised tools must be listed");
    }

    #[tokio::test]
    async fn what_is_too_large_is_flagged_and_hides_nothing() {
        let padded = |name: &str, bytes: usize| {
            let mut tool = tool(name);
            tool["description"] = "x".repeat(bytes - bytes_of(&tool) - r#","description":"""#.len()).into();
            assert_eq!(bytes_of(&tool), bytes);
            tool
        };
        let largest = ENTRY_BYTES_MAX;
        let nameless = json!({"x": "y".repeat(largest)});
        let first = json!({"tools": [padded("huge", largest + 1), tool("a"), nameless], "nextCursor": "1"});
        let pages = vec![
            ("tools/list", first),
            ("tools/list", json!({"tools": [padded("large", largest)]})),
            ("prompts/list", json!({"prompts": [padded("p", largest + 1), {"name": "q"}]})),
        ];
        let (definitions, _) = list(json!({"tools": {}, "prompts": {}}), pages).await;
        let definitions = definitions.unwrap();
        let names: Vec<_> = definitions.tools.iter().map(|tool| tool.name().as_str()).collect();
        assert_eq!(names, ["a", "large"]);
        let rejected: Vec<_> = definitions.rejected.iter().map(|r| (r.name.as_deref(), r.reason.as_str())).collect();
        assert_eq!(rejected[0], (Some("huge"), "must have at most 65536 bytes of JSON, has 65537"));
        assert!(rejected[1].0.is_none() && rejected[1].1.contains("65536"), "{rejected:?}");
        assert_eq!(definitions.prompts, [json!({"name": "q"})]);
    }

    #[tokio::test]
    async fn what_is_no_object_is_an_error_and_no_panic() {
        for page in [json!([]), json!("tools"), json!({"tools": {}}), json!({})] {
            let (answer, _) = list(json!({"tools": {}}), vec![("tools/list", page.clone())]).await;
            assert!(answer.unwrap_err().message().contains("has no list `tools`"), "{page}");
        }
    }

    #[test]
    fn a_server_says_no_more_about_itself_than_is_kept() {
        assert_eq!(modest("initialize", "capabilities", json!({"tools": {}})).unwrap(), json!({"tools": {}}));
        let error = modest("initialize", "capabilities", "x".repeat(ENTRY_BYTES_MAX).into()).unwrap_err();
        assert!(error.message().contains("`capabilities` must have at most 65536 bytes"), "{error}");
    }

    #[tokio::test]
    async fn endless_lists_end() {
        let turning = vec![
            ("tools/list", json!({"tools": [tool("a")], "nextCursor": "1"})),
            ("tools/list", json!({"tools": [tool("b")], "nextCursor": "1"})),
        ];
        let (definitions, asked) = list(json!({"tools": {}}), turning).await;
        assert_eq!(asked.len(), 2);
        assert!(definitions.unwrap().rejected[0].reason.contains("same cursor"));
        let many: Vec<_> = (0..1_500).map(|n| tool(&format!("t{n}"))).collect();
        let (definitions, _) = list(json!({"tools": {}}), vec![("tools/list", json!({"tools": many}))]).await;
        let definitions = definitions.unwrap();
        assert_eq!(definitions.tools.len(), ENTRIES_MAX);
        assert!(definitions.rejected[0].reason.contains("1500"));
    }
}
