//! How the stream of events of a registry must behave, near or far: a part of
//! [`registry_suite`](super::registry_suite), which re-exports each function.

use std::time::Duration;

use super::registry_suite::{Subject, service};
use crate::event::{EventKind, EventStream, Next};
use crate::machina::{Registry, Router};
use crate::model::Revision;
use crate::write::Mutation;

/// How long an event may be under way.
const PATIENCE: Duration = Duration::from_secs(20);

async fn next(events: &mut EventStream) -> Next {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("an event comes")
}

/// The next event as its service and what happened to it.
async fn told(events: &mut EventStream) -> (String, EventKind, Revision) {
    match next(events).await {
        Next::Event(event) => {
            let service = event.service.as_ref().map(ToString::to_string).unwrap_or_default();
            (service, event.kind.clone(), event.revision)
        }
        Next::Resync => panic!("nothing was missed"),
    }
}

async fn register<R: Registry>(subject: &Subject<R>, name: &str) -> Revision {
    subject.registry.apply(vec![Mutation::Register(service(name, &[]))]).await.expect("registers").revision
}

/// What changes after the stream was opened is told, in order and once.
///
/// # Panics
/// When the registry behaves in another way.
pub async fn changes_are_told_as_they_happen<R: Registry + Router>(subject: &Subject<R>) {
    register(subject, "before").await;
    let mut events = subject.registry.watch(None).await.expect("watches");
    let first = register(subject, "a").await;
    let mut spec = service("a", &[]);
    spec.description = "another".to_owned();
    let name = spec.name.clone();
    let update = Mutation::Update { name: name.clone(), spec, expected: None };
    let second = subject.registry.apply(vec![update]).await.expect("updates").revision;
    let gone = Mutation::Deregister { name, expected: None };
    let third = subject.registry.apply(vec![gone]).await.expect("removes").revision;
    let expected = [
        (EventKind::ServiceRegistered, first),
        (EventKind::ServiceUpdated, second),
        (EventKind::ServiceDeregistered, third),
    ];
    for (kind, revision) in expected {
        assert_eq!(told(&mut events).await, ("a".to_owned(), kind, revision));
    }
    register(subject, "after").await;
    assert_eq!(told(&mut events).await.0, "after");
}

/// A stream since a revision begins with what happened after it.
///
/// # Panics
/// When the registry behaves in another way.
pub async fn what_happened_since_is_replayed<R: Registry + Router>(subject: &Subject<R>) {
    let known = register(subject, "a").await;
    for name in ["b", "c"] {
        register(subject, name).await;
    }
    let mut events = subject.registry.watch(Some(known)).await.expect("watches");
    for name in ["b", "c"] {
        assert_eq!(told(&mut events).await.0, name);
    }
    register(subject, "d").await;
    assert_eq!(told(&mut events).await.0, "d");
    let mut all = subject.registry.watch(Some(Revision::ZERO)).await.expect("watches");
    for name in ["a", "b", "c", "d"] {
        assert_eq!(told(&mut all).await.0, name);
    }
}

/// Who knows what never was is told to resync, and goes on from there.
///
/// # Panics
/// When the registry behaves in another way.
pub async fn who_knows_another_registry_is_told_to_resync<R: Registry + Router>(subject: &Subject<R>) {
    let known = register(subject, "a").await;
    let mut events = subject.registry.watch(Some(Revision(known.0 + 1000))).await.expect("watches");
    assert_eq!(next(&mut events).await, Next::Resync);
    register(subject, "b").await;
    assert_eq!(told(&mut events).await.0, "b");
}
