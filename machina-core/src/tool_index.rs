//! Finding tools by what one wants to do.
//!
//! [`LexicalIndex`] ranks by BM25 (Robertson and Zaragoza 2009) over name,
//! title, description, parameter names and tags, names split into words.

mod postings;
mod words;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::FixedState;

use self::postings::{Number, Postings};
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

/// How often the words of a name count, compared with those of a description.
const NAME_WEIGHT: usize = 3;

/// Ranks by words. Needs no service and no model.
#[derive(Default)]
pub struct LexicalIndex {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    postings: Postings,
    /// By number; nothing in the place of those that are gone.
    tools: Vec<Option<Indexed>>,
    services: HashMap<ServiceName, Listed, FixedState>,
}

struct Indexed {
    service: ServiceName,
    tool: Arc<Tool>,
}

/// What a service offers.
struct Listed {
    tags: Box<[Tag]>,
    tools: Range<Number>,
}

impl fmt::Debug for LexicalIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tools = self.inner.read().unwrap_or_else(PoisonError::into_inner).tools.iter().flatten().count();
        f.debug_struct("LexicalIndex").field("tools", &tools).finish()
    }
}

impl ToolIndex for LexicalIndex {
    fn put(&self, service: &ServiceName, tags: &[Tag], tools: &[Arc<Tool>]) {
        // Most changes of a service are none of its tools.
        if self.inner.read().unwrap_or_else(PoisonError::into_inner).has(service, tags, tools) {
            return;
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove(service);
        inner.add(service, tags, tools);
    }

    fn remove(&self, service: &ServiceName) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).remove(service);
    }

    fn search(&self, text: &str, limit: usize, admits: &dyn Fn(&ServiceName) -> bool) -> Vec<Hit> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).search(text, limit, admits)
    }
}

impl Inner {
    fn indexed(&self, number: Number) -> Option<&Indexed> {
        self.tools.get(number as usize)?.as_ref()
    }

    fn has(&self, service: &ServiceName, tags: &[Tag], tools: &[Arc<Tool>]) -> bool {
        let Some(listed) = self.services.get(service) else { return tools.is_empty() };
        let same = |(number, tool): (Number, &Arc<Tool>)| {
            self.indexed(number).is_some_and(|known| Arc::ptr_eq(&known.tool, tool) || known.tool == *tool)
        };
        *listed.tags == *tags && listed.tools.len() == tools.len() && listed.tools.clone().zip(tools).all(same)
    }

    fn add(&mut self, service: &ServiceName, tags: &[Tag], tools: &[Arc<Tool>]) {
        if self.postings.is_sparse() {
            self.renumber();
        }
        let Some((first, more)) = tools.split_first() else { return };
        let begin = self.add_tool(service, tags, first);
        let end = more.iter().map(|tool| self.add_tool(service, tags, tool)).last().unwrap_or(begin) + 1;
        self.services.insert(service.clone(), Listed { tags: tags.into(), tools: begin..end });
    }

    fn add_tool(&mut self, service: &ServiceName, tags: &[Tag], tool: &Arc<Tool>) -> Number {
        self.tools.push(Some(Indexed { service: service.clone(), tool: Arc::clone(tool) }));
        with_texts(service, tags, tool, |texts| self.postings.add(texts))
    }

    fn remove(&mut self, service: &ServiceName) {
        let Some(listed) = self.services.remove(service) else { return };
        for number in listed.tools {
            if let Some(gone) = self.tools.get_mut(number as usize).and_then(Option::take) {
                with_texts(service, &listed.tags, &gone.tool, |texts| self.postings.remove(texts));
            }
        }
    }

    /// Numbers follow each other within a service, before and after.
    fn renumber(&mut self) {
        self.postings.renumber(|number| self.tools.get(number as usize).is_some_and(Option::is_some));
        let mut next: Number = 0;
        let mut starts: HashMap<Number, Number, FixedState> = HashMap::default();
        for (number, tool) in (0..).zip(&self.tools) {
            if tool.is_some() {
                starts.insert(number, next);
                next += 1;
            }
        }
        for listed in self.services.values_mut() {
            let begin = starts.get(&listed.tools.start).copied().unwrap_or_default();
            let count = listed.tools.end - listed.tools.start;
            listed.tools = begin..begin + count;
        }
        self.tools.retain(Option::is_some);
        self.tools.shrink_to_fit();
    }

    fn search(&self, text: &str, limit: usize, admits: &dyn Fn(&ServiceName) -> bool) -> Vec<Hit> {
        // The tools of a service follow each other: it is asked about once for all of them.
        let mut last: Option<(&ServiceName, bool)> = None;
        let found = self.postings.search(text, limit, |number| {
            let Some(Indexed { service, .. }) = self.indexed(number) else { return false };
            match last {
                Some((before, admitted)) if before == service => admitted,
                _ => last.insert((service, admits(service))).1,
            }
        });
        let mut hits: Vec<(&Indexed, f32)> =
            found.into_iter().filter_map(|(number, score)| Some((self.indexed(number)?, score))).collect();
        if (1..hits.len()).contains(&limit) {
            hits.select_nth_unstable_by(limit - 1, better);
            hits.truncate(limit);
        }
        hits.sort_unstable_by(better);
        hits.truncate(limit);
        let hit = |(found, score): (&Indexed, f32)| Hit {
            service: found.service.clone(),
            tool: Arc::clone(&found.tool),
            score,
        };
        hits.into_iter().map(hit).collect()
    }
}

fn better((a, score): &(&Indexed, f32), (b, other): &(&Indexed, f32)) -> Ordering {
    let by_score = other.total_cmp(score);
    by_score.then_with(|| (&a.service, a.tool.name()).cmp(&(&b.service, b.tool.name())))
}

/// What a tool is found by.
fn with_texts<T>(service: &ServiceName, tags: &[Tag], tool: &Tool, read: impl FnOnce(&[&str]) -> T) -> T {
    let (own_tags, arguments) = (tool.tags(), tool.argument_names());
    let mut texts = vec![tool.name().as_str(); NAME_WEIGHT];
    texts.extend(tool.title());
    texts.push(tool.description());
    texts.push(service.as_str());
    texts.extend(tags.iter().chain(&own_tags).map(Tag::as_str));
    texts.extend(arguments.iter().map(String::as_str));
    read(&texts)
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

    #[test]
    fn services_that_come_and_go_leave_nothing_behind() {
        let index = LexicalIndex::default();
        let service = |number: usize| ServiceName::new(&format!("s{number}")).unwrap();
        for number in 0..3000 {
            let kept = number % 100 == 0;
            let tools = [tool(&format!("count_{number}"), "Counts."), tool("add", if kept { "Adds." } else { "" })];
            index.put(&service(number), &[], &tools);
            index.put(&service(number), &[], &tools);
            if !kept {
                index.remove(&service(number));
            }
        }
        let inner = index.inner.read().unwrap();
        assert!(inner.tools.len() < 1200, "{}", inner.tools.len());
        assert_eq!((inner.services.len(), inner.tools.iter().flatten().count()), (30, 60));
        drop(inner);
        assert_eq!(names(&index, "adds")[0], "add");
        assert_eq!(index.search("add", usize::MAX, &|_| true).len(), 30);
        assert_eq!(names(&index, "count 2900")[0], "count_2900");
        assert!(!names(&index, "count 2901").contains(&"count_2901".to_owned()));
    }

    #[test]
    fn equal_scores_are_ordered_by_service_and_tool() {
        let index = LexicalIndex::default();
        for service in ["c", "a", "b"] {
            index.put(&ServiceName::new(service).unwrap(), &[], &[tool("echo", ""), tool("echo", "")]);
        }
        let services = |limit| -> String {
            index
                .search("echo", limit, &|service| service.as_str() != "d")
                .iter()
                .map(|hit| hit.service.to_string())
                .collect()
        };
        assert_eq!((services(3), services(100)), ("aab".to_owned(), "aabbcc".to_owned()));
    }
}
