use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::access::{Principal, Role};
use crate::machina::Machina;
use crate::memory::MemoryStore;
use crate::replies::MemoryReplies;
use crate::store::Backend;

async fn machina() -> Machina {
    Machina::builder().open().await.unwrap()
}

fn hash(text: &str) -> RequestHash {
    RequestHash::of([text.as_bytes()])
}

fn reply(bytes: usize) -> Reply {
    Reply { status: 201, headers: vec![("etag".to_owned(), "\"1\"".to_owned())], body: vec![b'x'; bytes] }
}

/// Counts how often it is done.
#[derive(Clone, Default)]
struct Work(Arc<AtomicU32>);

impl Work {
    fn answering(&self, error: Option<Error>, bytes: usize) -> impl Future<Output = Answer> + Send + 'static {
        let count = Arc::clone(&self.0);
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            Answer { reply: reply(bytes), error }
        }
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn the_same_request_is_done_once() {
    let (machina, work) = (machina().await, Work::default());
    let a = machina.scoped(Principal::new("a", Role::Admin));
    let first = a.once("k", hash("r"), work.answering(None, 3)).await.unwrap();
    let again = a.once("k", hash("r"), work.answering(None, 9)).await.unwrap();
    assert_eq!((first.again, again.again, first.reply, work.count()), (false, true, again.reply, 1));
    let other = a.once("k", hash("s"), work.answering(None, 3)).await.unwrap_err();
    assert_eq!((other.kind(), &*other.context().problems[0].field), (ErrorKind::Invalid, "idempotency-key"));
    for (who, key) in [
        (Principal::new("a", Role::Admin), "l"),
        (Principal::new("b", Role::Admin), "k"),
        (Principal::new("a", Role::Admin).of_tenant("t"), "k"),
    ] {
        assert!(!machina.scoped(who).once(key, hash("r"), work.answering(None, 3)).await.unwrap().again);
    }
    assert_eq!(work.count(), 4);
    for key in ["", "a\nb", &"k".repeat(256)] {
        let wrong = a.once(key, hash("r"), work.answering(None, 3)).await.unwrap_err();
        assert_eq!(wrong.context().problems[0].field, "idempotency-key");
    }
}

#[test]
fn the_parts_of_a_request_do_not_run_together() {
    assert_ne!(RequestHash::of([b"ab".as_slice(), b"c"]), RequestHash::of([b"a".as_slice(), b"bc"]));
}

#[tokio::test]
async fn only_what_was_certainly_not_done_is_forgotten() {
    let scoped = machina().await.system().clone();
    let unknown = |error: Error| error.at(Phase::MaybeExecuted);
    let refused = |error: Error| error.at(Phase::Refused);
    let cases = [
        (Error::invalid("x"), 1),
        (Error::forbidden("x"), 1),
        (Error::not_found("x"), 1),
        (Error::conflict("x"), 1),
        (Error::internal("x"), 1),
        (Error::timeout("x"), 1),
        (unknown(Error::lost("x")), 1),
        (unknown(Error::timeout("x")), 1),
        (unknown(Error::unavailable("x")), 1),
        (Error::rejected("x").at(Phase::Answered), 1),
        (Error::unavailable("x"), 2),
        (Error::overloaded("x"), 2),
        (refused(Error::overloaded("x")), 2),
        (Error::unreachable("x").at(Phase::NotSent), 2),
        (refused(Error::timeout("x")), 2),
        (Error::unauthenticated("x"), 2),
    ];
    for (index, (error, expected)) in cases.into_iter().enumerate() {
        let (work, key) = (Work::default(), index.to_string());
        for _ in 0..2 {
            scoped.once(&key, hash("r"), work.answering(Some(error.clone()), 3)).await.unwrap();
        }
        assert_eq!(work.count(), expected, "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_kept_and_not_made_again() {
    let (scoped, work) = (machina().await.system().clone(), Work::default());
    scoped.once("k", hash("r"), work.answering(None, BODY_BYTES_MAX + 1)).await.unwrap();
    let error = scoped.once("k", hash("r"), work.answering(None, 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.context().outcome), (ErrorKind::Conflict, Some(Outcome::Executed)));
    assert!(error.message().contains("201"), "{error}");
    assert_eq!(work.count(), 1);
}

#[tokio::test]
async fn who_asks_meanwhile_is_told_to_wait_and_who_goes_away_loses_nothing() {
    let (scoped, work) = (machina().await.system().clone(), Work::default());
    let (go, wait) = oneshot::channel::<()>();
    let answer = work.answering(None, 3);
    let slow = async move {
        let _ = wait.await;
        answer.await
    };
    tokio::select! {
        biased;
        _ = scoped.once("k", hash("r"), slow) => panic!("it cannot be done yet"),
        () = tokio::time::sleep(Duration::from_millis(20)) => {}
    }
    let running = scoped.once("k", hash("r"), work.answering(None, 3)).await.unwrap_err();
    assert_eq!((running.kind(), running.context().retry_after_ms), (ErrorKind::Conflict, Some(1000)));
    go.send(()).unwrap();
    for _ in 0..500 {
        if let Ok(replied) = scoped.once("k", hash("r"), work.answering(None, 9)).await {
            assert!(replied.again && replied.reply == reply(3));
            assert_eq!(work.count(), 1);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the answer was never there");
}

#[tokio::test]
async fn what_panicked_is_not_done_again() {
    let (scoped, work) = (machina().await.system().clone(), Work::default());
    let panics = async { panic!("it is there to panic") };
    let error = scoped.once("k", hash("r"), panics).await.unwrap_err();
    assert_eq!((error.kind(), error.context().outcome), (ErrorKind::Internal, Some(Outcome::Unknown)));
    let again = scoped.once("k", hash("r"), work.answering(None, 3)).await.unwrap_err();
    let context = again.context();
    assert_eq!((again.kind(), context.outcome), (ErrorKind::Conflict, Some(Outcome::Unknown)));
    assert_eq!(context.retry_after_ms, None, "there is nothing to wait for: {again}");
    assert_eq!(work.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_removed_from_time_to_time() {
    let replies = Arc::new(MemoryReplies::new());
    let key = ReplyKey { tenant: String::new(), principal: "a".to_owned(), key: "k".to_owned() };
    let at = jiff::Timestamp::UNIX_EPOCH;
    let claim = Claim { key, request: "r".to_owned(), at, until: at + KEPT_FOR };
    replies.begin(&claim).await.unwrap();
    let backend = Backend { replies: replies.clone(), ..Backend::of(MemoryStore::new()) };
    let machina = Machina::builder().backend(backend).open().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(replies.begin(&claim).await.unwrap(), Begun::New, "it was not removed at the start");
    tokio::time::sleep(TRIM_EVERY).await;
    assert_eq!(replies.begin(&claim).await.unwrap(), Begun::New, "it was not removed later");
    machina.close().await;
}
