//! Notices that the lists a host reads have changed: once for changes that come
//! together, and not at all when the host would read the same again. Holds no
//! queue: who is slow to ask hears of the newest state only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machina_core::{EventStream, Next, Registry};

use super::gateway::Gateway;

/// How long changes are gathered before the host is told.
const TOGETHER: Duration = Duration::from_millis(100);

/// Some of the lists that a host reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub(crate) tools: bool,
    pub(crate) prompts: bool,
    pub(crate) resources: bool,
}

impl Kinds {
    /// All of them.
    pub(crate) const ALL: Self = Self { tools: true, prompts: true, resources: true };

    /// Those that are in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            tools: self.tools && other.tools,
            prompts: self.prompts && other.prompts,
            resources: self.resources && other.resources,
        }
    }

    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }

    /// Takes one of them out: the notification that it has changed.
    fn take(&mut self) -> Option<&'static str> {
        for (kind, method) in [
            (&mut self.tools, "notifications/tools/list_changed"),
            (&mut self.prompts, "notifications/prompts/list_changed"),
            (&mut self.resources, "notifications/resources/list_changed"),
        ] {
            if std::mem::take(kind) {
                return Some(method);
            }
        }
        None
    }
}

/// A number for each list: another one for another list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) tools: u64,
    pub(crate) prompts: u64,
    pub(crate) resources: u64,
}

/// The lists that a host knows, or has been told to read again.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<Mutex<Lists>>);

impl Told {
    /// A host that can have read these.
    pub(super) fn new(lists: Lists) -> Self {
        Self(Arc::new(Mutex::new(lists)))
    }

    /// Of `kinds`, those in which `now` is something else; the host knows them then.
    fn catch_up(&self, now: Lists, kinds: Kinds) -> Kinds {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = Kinds {
            tools: told.tools != now.tools,
            prompts: told.prompts != now.prompts,
            resources: told.resources != now.resources,
        };
        *told = now;
        changed.and(kinds)
    }
}

/// What changes in the lists of one host.
#[derive(Debug)]
struct Changes {
    events: EventStream,
    gateway: Gateway,
    kinds: Kinds,
    told: Told,
}

impl Changes {
    /// Waits until some of the lists are others than the host knows. May be
    /// dropped and called again.
    async fn next(&mut self) -> Kinds {
        loop {
            let changed = self.told.catch_up(self.gateway.lists(), self.kinds);
            if changed.any() {
                return changed;
            }
            while !concerns_lists(&self.events.next().await) {}
            tokio::time::sleep(TOGETHER).await;
            while self.events.try_next().is_some() {}
        }
    }
}

fn concerns_lists(next: &Next) -> bool {
    match next {
        Next::Event(event) => !event.kind.is_of_health(),
        Next::Resync => true,
    }
}

/// The notifications that tell one host of changes, one after the other.
#[derive(Debug)]
pub(super) struct Feed {
    /// None where nothing can be told: then it is silent for ever.
    changes: Option<Changes>,
    kinds: Kinds,
    due: Kinds,
}

impl Feed {
    /// The changes of `kinds`, as far as the host of `gateway` may be told of
    /// them, since it knew what `told` says; from now on without it.
    pub(super) async fn open(gateway: &Gateway, kinds: Kinds, told: Option<Told>) -> Self {
        let kinds = kinds.and(gateway.changing());
        // Before the lists are looked at: what happens in between is told.
        let events = if kinds.any() { gateway.scoped().watch(None).await.ok() } else { None };
        let changes = events.map(|events| {
            let told = told.unwrap_or_else(|| Told::new(gateway.lists()));
            Changes { events, gateway: gateway.clone(), kinds, told }
        });
        let kinds = if changes.is_some() { kinds } else { Kinds::default() };
        Self { changes, kinds, due: Kinds::default() }
    }

    /// What it can tell of.
    pub(super) fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// The method of the next notification. May be dropped and called again.
    pub(super) async fn next(&mut self) -> &'static str {
        loop {
            if let Some(method) = self.due.take() {
                return method;
            }
            match &mut self.changes {
                Some(changes) => self.due = changes.next().await,
                None => std::future::pending().await,
            }
        }
    }
}

/// What the host of `gateway` can be told of.
pub(super) async fn tellable(gateway: &Gateway) -> Kinds {
    match gateway.scoped().watch(None).await {
        Ok(_) => gateway.changing(),
        Err(_) => Kinds::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_once_of_each_list_that_is_another() {
        let told = Told::new(Lists { tools: 1, prompts: 2, resources: 3 });
        let same = Lists { tools: 1, prompts: 2, resources: 3 };
        assert!(!told.catch_up(same, Kinds::ALL).any());
        let mut changed = told.catch_up(Lists { prompts: 7, resources: 8, ..same }, Kinds::ALL);
        assert_eq!(changed.take(), Some("notifications/prompts/list_changed"));
        assert_eq!(changed.take(), Some("notifications/resources/list_changed"));
        assert_eq!(changed.take(), None);
        assert!(!told.catch_up(Lists { prompts: 7, resources: 8, ..same }, Kinds::ALL).any());
    }

    #[test]
    fn of_what_was_not_asked_for_nothing_is_told() {
        let told = Told::default();
        let tools = Kinds { tools: true, ..Kinds::default() };
        assert!(!told.catch_up(Lists { resources: 1, ..Lists::default() }, tools).any());
        assert_eq!(told.catch_up(Lists { tools: 1, ..Lists::default() }, tools), tools);
    }
}
