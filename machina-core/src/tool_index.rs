//! Finding tools by what one wants to do.
//!
//! [`LexicalIndex`] ranks by BM25 (Robertson and Zaragoza 2009) over name,
//! title, description, parameter names and tags, names split into words.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bm25::{Embedder, EmbedderBuilder, Scorer, Tokenizer};

use crate::model::{ServiceName, Tag, Tool};

/// A tool that was found.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The service that offers it.
    pub service: ServiceName,
    /// The tool.
    pub tool: Arc<Tool>,
    /// How well it fits: higher is better, comparable within one answer.
    pub score: f32,
}

/// Finds tools. The registry keeps it up to date.
///
/// # Behaviour
/// * What was put is found from the moment [`ToolIndex::put`] returns.
/// * [`ToolIndex::put`] replaces everything that was known of the service.
/// * Equal scores are ordered by service and tool, so answers are repeatable.
pub trait ToolIndex: fmt::Debug + Send + Sync + 'static {
    /// The service offers exactly these tools.
    fn put(&self, service: &ServiceName, tags: &[Tag], tools: &[Arc<Tool>]);

    /// The service is gone.
    fn remove(&self, service: &ServiceName);

    /// The tools that fit `text` best, best first, among those that `admits` accepts.
    fn search(&self, text: &str, limit: usize, admits: &dyn Fn(&ServiceName) -> bool) -> Vec<Hit>;
}

/// The average number of words in a tool's text, measured on the definitions of
/// about a thousand published tools. BM25 normalises by it.
const WORDS_AVERAGE: f32 = 60.0;

/// How often the words of a name count, compared with those of a description.
const NAME_WEIGHT: usize = 3;

type Key = u32;

/// Ranks by words. Needs no service and no model.
pub struct LexicalIndex {
    inner: RwLock<Inner>,
}

struct Inner {
    embedder: Embedder<u32, Words>,
    scorer: Scorer<Key>,
    tools: HashMap<Key, (ServiceName, Arc<Tool>)>,
    keys: HashMap<ServiceName, Vec<Key>>,
    next: Key,
}

impl Default for LexicalIndex {
    fn default() -> Self {
        let embedder = EmbedderBuilder::with_avgdl(WORDS_AVERAGE).tokenizer(Words).build();
        let inner = Inner { embedder, scorer: Scorer::new(), tools: HashMap::new(), keys: HashMap::new(), next: 0 };
        Self { inner: RwLock::new(inner) }
    }
}

impl fmt::Debug for LexicalIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tools = self.inner.read().unwrap_or_else(PoisonError::into_inner).tools.len();
        f.debug_struct("LexicalIndex").field("tools", &tools).finish()
    }
}

impl ToolIndex for LexicalIndex {
    fn put(&self, service: &ServiceName, tags: &[Tag], tools: &[Arc<Tool>]) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove(service);
        for tool in tools {
            let key = inner.next;
            inner.next = inner.next.wrapping_add(1);
            let embedding = inner.embedder.embed(&text_of(service, tags, tool));
            inner.scorer.upsert(&key, embedding);
            inner.tools.insert(key, (service.clone(), Arc::clone(tool)));
            inner.keys.entry(service.clone()).or_default().push(key);
        }
    }

    fn remove(&self, service: &ServiceName) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).remove(service);
    }

    fn search(&self, text: &str, limit: usize, admits: &dyn Fn(&ServiceName) -> bool) -> Vec<Hit> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let matches = inner.scorer.matches(&inner.embedder.embed(text));
        let mut hits: Vec<Hit> = matches
            .into_iter()
            .filter_map(|scored| {
                let (service, tool) = inner.tools.get(&scored.id)?;
                let hit = || Hit { service: service.clone(), tool: Arc::clone(tool), score: scored.score };
                admits(service).then(hit)
            })
            .collect();
        hits.sort_by(|a, b| {
            let by_score = b.score.total_cmp(&a.score);
            by_score.then_with(|| (&a.service, a.tool.name()).cmp(&(&b.service, b.tool.name())))
        });
        hits.truncate(limit);
        hits
    }
}

impl Inner {
    fn remove(&mut self, service: &ServiceName) {
        for key in self.keys.remove(service).unwrap_or_default() {
            self.scorer.remove(&key);
            self.tools.remove(&key);
        }
    }
}

fn text_of(service: &ServiceName, tags: &[Tag], tool: &Tool) -> String {
    let mut parts = vec![tool.name().as_str(); NAME_WEIGHT];
    parts.extend(tool.title());
    parts.push(tool.description());
    parts.push(service.as_str());
    parts.extend(tags.iter().map(Tag::as_str));
    let own_tags = tool.tags();
    parts.extend(own_tags.iter().map(Tag::as_str));
    let parameters = tool.input_schema()["properties"].as_object();
    parts.extend(parameters.into_iter().flatten().map(|(name, _)| name.as_str()));
    parts.join("\n")
}

/// Splits text into lower-case words, also at changes of case within a name
/// (`getCurrentTime`) and at anything that is no letter or digit.
#[derive(Debug, Default)]
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        for run in text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty()) {
            split_case(run, &mut words);
        }
        words
    }
}

fn split_case(run: &str, words: &mut Vec<String>) {
    let chars: Vec<char> = run.chars().collect();
    let mut word = String::new();
    for (index, c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| chars[before]);
        let after = chars.get(index + 1);
        let humps = before.is_some_and(|before| before.is_lowercase() && c.is_uppercase());
        let acronym_ends = before.is_some_and(char::is_uppercase)
            && c.is_uppercase()
            && after.is_some_and(|after| after.is_lowercase());
        if (humps || acronym_ends) && !word.is_empty() {
            words.push(stem(std::mem::take(&mut word)));
        }
        word.extend(c.to_lowercase());
    }
    if !word.is_empty() {
        words.push(stem(word));
    }
}

/// Takes the plural `s` off, so that `file` finds `files`.
fn stem(mut word: String) -> String {
    if word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") && word.is_ascii() {
        word.pop();
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(name: &str, description: &str) -> Arc<Tool> {
        let definition = json!({"name": name, "description": description,
            "inputSchema": {"type": "object", "properties": {"timezone": {}}}});
        Arc::new(Tool::parse(definition).unwrap())
    }

    fn names(index: &LexicalIndex, text: &str) -> Vec<String> {
        index.search(text, 10, &|_| true).iter().map(|hit| hit.tool.name().to_string()).collect()
    }

    #[test]
    fn names_are_split_into_words() {
        let words = Words.tokenize("getCurrentTime HTTPServer read_files list-dirs v2");
        assert_eq!(words, ["get", "current", "time", "http", "server", "read", "file", "list", "dir", "v2"]);
    }

    #[test]
    fn the_best_fit_comes_first_and_a_put_replaces() {
        let index = LexicalIndex::default();
        let (a, b) = (ServiceName::new("clock").unwrap(), ServiceName::new("disk").unwrap());
        index.put(&a, &[], &[tool("getCurrentTime", "Tells the time."), tool("setAlarm", "Rings later.")]);
        index.put(&b, &[], &[tool("read_file", "Reads a file, with the time it was changed.")]);
        assert_eq!(names(&index, "current time"), ["getCurrentTime", "read_file"]);
        assert_eq!(names(&index, "files")[0], "read_file");
        index.put(&a, &[], &[tool("setAlarm", "Rings later.")]);
        assert_eq!(names(&index, "current time"), ["read_file"]);
        index.remove(&b);
        assert!(names(&index, "file").is_empty());
        assert!(names(&index, "").is_empty());
    }

    #[test]
    fn only_admitted_services_are_found() {
        let index = LexicalIndex::default();
        let (a, b) = (ServiceName::new("a").unwrap(), ServiceName::new("b").unwrap());
        index.put(&a, &[], &[tool("echo", "")]);
        index.put(&b, &[], &[tool("echo", "")]);
        let hits = index.search("echo", 10, &|service| *service == b);
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].service, b);
    }
}
