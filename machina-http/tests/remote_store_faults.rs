//! What a follower makes of answers that are not what they should be: nothing that
//! broke off is taken for the whole.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/ports.rs"]
mod ports;

use machina_core::{Batch, Changes, ErrorKind, Image, Result, Revision, Store as _, Tasks};
use machina_http::{Client, RemoteStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A store whose server answers each request with `answer`, and then hangs up.
async fn answering(answer: &'static str) -> (RemoteStore, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let tasks = Tasks::new();
    drop(tasks.spawn("serve", async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                socket.read_buf(&mut request).await.unwrap();
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
            socket.shutdown().await.unwrap();
        }
    }));
    (RemoteStore::new(Client::new(&url).unwrap()), tasks)
}

async fn loaded(answer: &'static str) -> Result<Image> {
    let (store, tasks) = answering(answer).await;
    let image = store.load().await;
    tasks.cancel();
    image
}

macro_rules! lines {
    ($($line:expr),* $(,)?) => {
        concat!("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n", $($line, "\n"),*)
    };
}

#[tokio::test]
async fn an_image_is_whole_or_none() {
    let whole = loaded(lines!(r#"{"revision": 7, "generation": "a"}"#, r#"{"end": 0}"#)).await.unwrap();
    assert_eq!(whole, Image { revision: Revision(7), ..Image::default() });
    for (answer, kind) in [
        (lines!(r#"{"revision": 7, "generation": "a"}"#), ErrorKind::Lost),
        ("HTTP/1.1 200 OK\r\n\r\n{\"revision\": 7, \"gener", ErrorKind::Lost),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"revision\": 7, \"gener", ErrorKind::Lost),
        (lines!(r#"{"revision": 7, "generation": "a"}"#, r#"{"end": 1}"#), ErrorKind::Rejected),
        (lines!(r#"{"revision": 7, "generation": "a"}"#, r#"{"planet": {}}"#, r#"{"end": 1}"#), ErrorKind::Rejected),
        (lines!(r#"{"revision": 7, "generation": "a"}"#, r#"{"group": {}}"#, r#"{"end": 1}"#), ErrorKind::Rejected),
        (lines!("<html>"), ErrorKind::Rejected),
        ("HTTP/1.1 404 Not Found\r\n\r\n", ErrorKind::Rejected),
        ("", ErrorKind::Lost),
    ] {
        let error = loaded(answer).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer}: {error}");
    }
    let misplaced = lines!(
        r#"{"revision": 7, "generation": "a"}"#,
        r#"{"change": {"revision": 8, "change": {"delete_group": "g"}}}"#,
        r#"{"end": 1}"#
    );
    assert_eq!(loaded(misplaced).await.unwrap_err().kind(), ErrorKind::Rejected);
}

#[tokio::test]
async fn changes_are_whole_or_none() {
    let read = async |answer| {
        let (store, tasks) = answering(answer).await;
        let changes = store.changes(Revision(7)).await;
        tasks.cancel();
        changes
    };
    let none = lines!(r#"{"revision": 7, "generation": "a"}"#, r#"{"end": 0}"#);
    assert_eq!(read(none).await.unwrap(), Changes::Tail(Vec::new()));
    let reload = lines!(r#"{"revision": 7, "generation": "a", "reload": true}"#, r#"{"end": 0}"#);
    assert_eq!(read(reload).await.unwrap(), Changes::Reload);
    let cut = lines!(
        r#"{"revision": 9, "generation": "a"}"#,
        r#"{"change": {"revision": 8, "change": {"delete_group": "g"}}}"#
    );
    assert_eq!(read(cut).await.unwrap_err().kind(), ErrorKind::Lost);
}

#[tokio::test]
async fn a_commit_without_an_answer_has_an_unknown_outcome() {
    let (store, tasks) = answering("").await;
    let error = store.commit(&Batch::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
    tasks.cancel();
    let closed = ports::closed();
    let url = format!("http://{}", closed.local_addr().unwrap());
    let store = RemoteStore::new(Client::new(&url).unwrap());
    assert_eq!(store.commit(&Batch::default()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.load().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.changes(Revision(0)).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_closed_store_wakes_who_waits_for_it() {
    let (store, tasks) = answering("").await;
    let (heard, closed) = tokio::join!(store.changed(), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        store.close().await
    });
    closed.unwrap();
    assert_eq!(heard.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.changed().await.unwrap_err().kind(), ErrorKind::Unavailable);
    tasks.cancel();
}
