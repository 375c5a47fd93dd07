//! How answers must be remembered: one function for each point of the
//! **Behaviour** list of [`Replies`]. [`replies_suite!`](crate::replies_suite)
//! makes a test of each. Every function expects that nothing is remembered yet,
//! and panics where the behaviour differs.

use std::time::Duration;

use jiff::Timestamp;

use crate::ErrorKind;
use crate::replies::{Begun, Claim, Keep, Remembered, Replies, Reply, ReplyKey, ReplyProgress};

/// Stamps one `#[tokio::test]` for each behaviour of [`Replies`].
///
/// The expression makes a new [`Backend`](crate::Backend), or anything that is
/// `AsRef<Backend>`; it may `.await`.
#[macro_export]
macro_rules! replies_suite {
    ($make:expr) => {
        $crate::replies_suite! { @ $make =>
            a_new_key_is_taken, a_finished_key_is_answered, an_answer_need_not_be_kept, a_forgotten_key_is_free,
            keys_belong_to_their_principal, an_expired_key_is_free, trim_removes_what_has_expired,
            of_concurrent_claims_one_wins, what_is_gone_stays_gone, what_is_remembered_is_listed,
        }
    };
    (@ $make:expr => $($behaviour:ident,)*) => {
        $(
            #[::tokio::test]
            async fn $behaviour() {
                let made = $make;
                let backend: &$crate::Backend = ::std::convert::AsRef::as_ref(&made);
                $crate::testing::replies_suite::$behaviour(&*backend.replies).await;
            }
        )*
    };
}

/// A fixed time and some seconds.
fn time(seconds: u64) -> Timestamp {
    Timestamp::from_millisecond(1_750_000_000_250).expect("the time is in range") + Duration::from_secs(seconds)
}

/// A claim made at second 0 that expires at second 10.
fn claim(key: &str) -> Claim {
    let key = ReplyKey { tenant: String::new(), principal: "alice".to_owned(), key: key.to_owned() };
    Claim { key, request: "r1".to_owned(), at: time(0), until: time(10) }
}

fn reply() -> Reply {
    let headers = vec![("etag".to_owned(), "\"7.a\"".to_owned()), ("content-type".to_owned(), "x/y; é".to_owned())];
    Reply { status: 201, headers, body: vec![0, 255, b'"', b'\n', 0xc3] }
}

async fn begin(replies: &dyn Replies, claim: &Claim) -> Begun {
    replies.begin(claim).await.expect("there is room")
}

async fn finish(replies: &dyn Replies, claim: &Claim) {
    replies.finish(&claim.key, &reply(), Keep::Whole).await.expect("the answer is kept");
}

fn known(progress: ReplyProgress) -> Begun {
    Begun::Known { request: "r1".to_owned(), progress }
}

/// A key that was taken is running until it is finished.
pub async fn a_new_key_is_taken(replies: &dyn Replies) {
    assert_eq!(begin(replies, &claim("a")).await, Begun::New);
    let other = Claim { request: "r2".to_owned(), at: time(1), ..claim("a") };
    assert_eq!(begin(replies, &other).await, known(ReplyProgress::Running), "the first request counts");
    assert_eq!(begin(replies, &claim("a ü\"'%")).await, Begun::New);
}

/// What was finished is answered byte for byte.
pub async fn a_finished_key_is_answered(replies: &dyn Replies) {
    begin(replies, &claim("a")).await;
    finish(replies, &claim("a")).await;
    for _ in 0..2 {
        assert_eq!(begin(replies, &claim("a")).await, known(ReplyProgress::Answered(reply())));
    }
    let empty = Reply { status: 204, headers: Vec::new(), body: Vec::new() };
    begin(replies, &claim("b")).await;
    replies.finish(&claim("b").key, &empty, Keep::Whole).await.expect("the answer is kept");
    assert_eq!(begin(replies, &claim("b")).await, known(ReplyProgress::Answered(empty)));
}

/// Of an answer that is not kept, the status is known.
pub async fn an_answer_need_not_be_kept(replies: &dyn Replies) {
    begin(replies, &claim("a")).await;
    replies.finish(&claim("a").key, &reply(), Keep::Status).await.expect("the status is kept");
    assert_eq!(begin(replies, &claim("a")).await, known(ReplyProgress::NotKept(201)));
}

/// A key that was forgotten may be taken by another request.
pub async fn a_forgotten_key_is_free(replies: &dyn Replies) {
    begin(replies, &claim("a")).await;
    replies.forget(&claim("a").key).await.expect("it is forgotten");
    let other = Claim { request: "r2".to_owned(), ..claim("a") };
    assert_eq!(begin(replies, &other).await, Begun::New);
}

/// The same key of another principal or tenant is another key.
pub async fn keys_belong_to_their_principal(replies: &dyn Replies) {
    let mut others = [claim("a"), claim("a"), claim("a")];
    others[1].key.principal = "bob".to_owned();
    others[2].key.tenant = "acme".to_owned();
    for claim in &others {
        assert_eq!(begin(replies, claim).await, Begun::New);
    }
    finish(replies, &others[1]).await;
    assert_eq!(begin(replies, &others[0]).await, known(ReplyProgress::Running));
    assert_eq!(begin(replies, &others[1]).await, known(ReplyProgress::Answered(reply())));
    replies.forget(&others[0].key).await.expect("it is forgotten");
    assert_eq!(begin(replies, &others[2]).await, known(ReplyProgress::Running));
}

/// A key is free from the moment that its claim names.
pub async fn an_expired_key_is_free(replies: &dyn Replies) {
    begin(replies, &claim("a")).await;
    finish(replies, &claim("a")).await;
    let at = |seconds| Claim { at: time(seconds), until: time(seconds + 10), ..claim("a") };
    assert_eq!(begin(replies, &at(9)).await, known(ReplyProgress::Answered(reply())));
    assert_eq!(begin(replies, &at(10)).await, Begun::New);
    assert_eq!(begin(replies, &at(19)).await, known(ReplyProgress::Running));
}

/// Trimming removes what has expired, and nothing else.
pub async fn trim_removes_what_has_expired(replies: &dyn Replies) {
    for (key, until) in [("a", 5), ("b", 5), ("c", 6)] {
        begin(replies, &Claim { until: time(until), ..claim(key) }).await;
    }
    finish(replies, &claim("a")).await;
    assert_eq!(replies.trim(time(4)).await.expect("it is trimmed"), 0);
    assert_eq!(replies.trim(time(5)).await.expect("it is trimmed"), 2);
    assert_eq!(begin(replies, &claim("c")).await, known(ReplyProgress::Running));
    assert_eq!(begin(replies, &claim("a")).await, Begun::New);
}

/// Of those who ask at the same time, one may do it.
pub async fn of_concurrent_claims_one_wins(replies: &dyn Replies) {
    for round in 0..10 {
        let claim = claim(&round.to_string());
        let (a, b, c) = tokio::join!(begin(replies, &claim), begin(replies, &claim), begin(replies, &claim));
        let won = [a, b, c].iter().filter(|begun| **begun == Begun::New).count();
        assert_eq!(won, 1);
    }
}

/// To finish or forget what is gone changes nothing.
pub async fn what_is_gone_stays_gone(replies: &dyn Replies) {
    finish(replies, &claim("a")).await;
    replies.forget(&claim("a").key).await.expect("it is no error");
    assert_eq!(begin(replies, &claim("a")).await, Begun::New);
    finish(replies, &claim("a")).await;
    let other = Reply { status: 500, ..reply() };
    replies.finish(&claim("a").key, &other, Keep::Whole).await.expect("it is no error");
    assert_eq!(begin(replies, &claim("a")).await, known(ReplyProgress::Answered(reply())), "the first answer counts");
}

/// What is remembered is listed page by page, in the order of the keys.
pub async fn what_is_remembered_is_listed(replies: &dyn Replies) {
    let mut claims = ["b", "a", "B", "é", "a/"].map(claim);
    claims[0].key.tenant = "acme".to_owned();
    claims[1].key.principal = "Zoe".to_owned();
    for claim in &claims {
        begin(replies, claim).await;
    }
    finish(replies, &claims[1]).await;
    replies.finish(&claims[2].key, &reply(), Keep::Status).await.expect("the status is kept");
    let mut listed = Vec::new();
    loop {
        let after: Option<ReplyKey> = listed.last().map(|last: &Remembered| last.claim.key.clone());
        match replies.list(after.as_ref(), 2).await {
            Ok(page) if page.is_empty() => break,
            Ok(page) => listed.extend(page),
            Err(error) if error.kind() == ErrorKind::Unsupported => return,
            Err(error) => panic!("{error}"),
        }
    }
    let progress = |key: &str| match key {
        "a" => ReplyProgress::Answered(reply()),
        "B" => ReplyProgress::NotKept(201),
        _ => ReplyProgress::Running,
    };
    claims.sort_by_key(|claim| claim.key.clone());
    let expected = claims.map(|claim| Remembered { progress: progress(&claim.key.key), claim });
    assert_eq!(listed, expected);
}
