//! What only happens when somebody else writes meanwhile.

use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Waker};

use machina_core::{
    Backend, Batch, Change, Entry, ErrorKind, MemoryStore, Service, ServiceId, ServiceSpec, Timestamp, What,
};

use super::*;

fn service(name: &str) -> Change {
    let service = Service {
        id: ServiceId::generate(),
        spec: ServiceSpec::new(name).unwrap(),
        revision: Revision::ZERO,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        updated_by: "alice".to_owned(),
    };
    Change::PutService(service.into())
}

fn entry() -> Entry {
    let what = What::Sample { outcome: "pass".to_owned(), response_time_ms: None, error: None };
    Entry { at: Timestamp::UNIX_EPOCH, service: None, instance: None, what }
}

async fn full() -> Backend {
    let backend = Backend::of(MemoryStore::new());
    backend.store.commit(&Batch { changes: vec![service("a")], ..Batch::default() }).await.unwrap();
    backend.journal.append(&[entry(), entry()]).await.unwrap();
    backend
}

/// Does what a store in memory does at once.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("a store in memory does not wait"),
    }
}

/// Copies, and does something when a part is begun.
async fn disturbed(from: &Backend, to: &Backend, part: CopyPart, disturb: impl Fn() + Send + Sync) -> Result<Copied> {
    let pending = Mutex::new(true);
    let progress = |told: CopyProgress| {
        if told.part == part && std::mem::take(&mut *pending.lock().unwrap()) {
            disturb();
        }
    };
    let opened = |backend: &Backend| Opened { backend: backend.clone(), configurations: None };
    between(&opened(from), &opened(to), CopyOptions { replace: false, progress: &progress }).await
}

#[tokio::test]
async fn an_undisturbed_copy_is_equal() {
    let (from, to) = (full().await, Backend::of(MemoryStore::new()));
    let copied = disturbed(&from, &to, CopyPart::Verify, || ()).await.unwrap();
    assert_eq!((copied.services.total, copied.entries.total), (1, 2));
    assert!(copied.left_out[0].starts_with("the history of configurations"), "{copied:?}");
}

#[tokio::test]
async fn what_others_write_to_the_target_is_noticed() {
    let (from, to) = (full().await, Backend::of(MemoryStore::new()));
    let disturb = || at_once(to.journal.append(&[entry()])).unwrap();
    let error = disturbed(&from, &to, CopyPart::Services, disturb).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.message().contains("(sample)"), "{error}");

    let (from, to) = (full().await, Backend::of(MemoryStore::new()));
    let batch = Batch { changes: vec![service("b")], ..Batch::default() };
    let disturb = || assert!(at_once(to.store.commit(&batch)).is_ok());
    let error = disturbed(&from, &to, CopyPart::Services, disturb).await.unwrap_err();
    assert!(error.message().contains("(services or groups)"), "{error}");
}

#[tokio::test]
async fn a_service_that_others_made_meanwhile_is_not_overwritten() {
    let (from, to) = (full().await, Backend::of(MemoryStore::new()));
    let batch = Batch { changes: vec![service("a")], ..Batch::default() };
    let disturb = || assert!(at_once(to.store.commit(&batch)).is_ok());
    let error = disturbed(&from, &to, CopyPart::Compare, disturb).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.message().contains("already a service named `a`"), "{error}");
}

#[tokio::test]
async fn what_comes_into_the_source_meanwhile_is_for_the_next_copy() {
    let (from, to) = (full().await, Backend::of(MemoryStore::new()));
    let disturb = || at_once(from.journal.append(&[entry()])).unwrap();
    let copied = disturbed(&from, &to, CopyPart::Services, disturb).await.unwrap();
    assert_eq!(copied.entries.total, 2);
    let copied = disturbed(&from, &to, CopyPart::Verify, || ()).await.unwrap();
    assert_eq!(copied.entries, Count { total: 3, before: 2 });
}

#[tokio::test]
async fn what_a_store_cannot_list_is_left_out_and_said() {
    #[derive(Debug)]
    struct Silent(machina_core::MemoryReplies);

    #[async_trait::async_trait]
    impl machina_core::Replies for Silent {
        async fn begin(&self, claim: &machina_core::Claim) -> Result<machina_core::Begun> {
            self.0.begin(claim).await
        }
        async fn finish(
            &self,
            key: &machina_core::ReplyKey,
            reply: &machina_core::Reply,
            keep: machina_core::Keep,
        ) -> Result<()> {
            self.0.finish(key, reply, keep).await
        }
        async fn forget(&self, key: &machina_core::ReplyKey) -> Result<()> {
            self.0.forget(key).await
        }
        async fn trim(&self, now: Timestamp) -> Result<u64> {
            self.0.trim(now).await
        }
    }

    let (mut from, to) = (full().await, Backend::of(MemoryStore::new()));
    from.replies = std::sync::Arc::new(Silent(machina_core::MemoryReplies::new()));
    let copied = disturbed(&from, &to, CopyPart::Verify, || ()).await.unwrap();
    assert!(copied.left_out[1].contains("does not list"), "{copied:?}");
}
