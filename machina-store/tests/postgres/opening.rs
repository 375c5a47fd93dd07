//! What opening makes, and what it refuses.

use std::time::Duration;

use machina_core::{ErrorKind, Revision};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::making::{batch, plain, put};
use super::ports;
use super::schema::{Schema, server};
use super::server::{OwnPostgres, Way, password};

/// Asserts that an address is refused with this kind and word, and no password shown.
async fn assert_refused(url: &str, kind: ErrorKind, says: &str) {
    let error = machina_store::open(url).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains("store") && error.message().contains(says), "{error}");
    for secret in [password(url), password(&server())] {
        assert!(!format!("{error:?}").contains(secret), "a password is shown");
    }
}

fn with_password(url: &str, password: &str) -> String {
    url.replacen(self::password(url), password, 1)
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let schema = Schema::new();
    let backend = schema.open().await;
    backend.store.commit(&batch([put(&plain("a"))])).await.unwrap();
    backend.store.close().await.unwrap();
    assert_eq!(backend.store.load().await.unwrap_err().message(), "the store is closed");
    assert!(!format!("{backend:?}").contains(password(&server())));
    let store = schema.open().await.store;
    let image = store.load().await.unwrap();
    assert_eq!((image.revision, image.services.len()), (Revision(1), 1));
    assert_eq!(store.commit(&batch([put(&plain("b"))])).await.unwrap(), Revision(2));
}

#[tokio::test]
async fn many_may_open_a_new_schema_at_once() {
    let schema = Schema::new();
    let url = schema.url();
    let (a, b, c, d) = tokio::join!(
        machina_store::open(&url),
        machina_store::open(&url),
        machina_store::open(&url),
        machina_store::open(&url)
    );
    for (index, backend) in [a, b, c, d].into_iter().enumerate() {
        let committed = backend.unwrap().store.commit(&batch([put(&plain(&format!("s{index}")))])).await.unwrap();
        assert_eq!(committed, Revision(index as u64 + 1));
    }
    assert_eq!(schema.row("SELECT count(*) FROM machina_migrations").await, "4");
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    assert_refused(&with_password(&server(), "hunter2"), ErrorKind::Invalid, "wrong password or user name").await;
    let nobody = server().replacen("machina:", "nobody:", 1);
    assert_refused(&nobody, ErrorKind::Invalid, "does not let the user `nobody` in").await;
}

#[tokio::test]
async fn a_missing_database_is_refused() {
    let (before, _) = server().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_refused(&format!("{before}/missing"), ErrorKind::Invalid, "/missing` is no database of this server").await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://alice:hunter2@127.0.0.1:{port}/machina?connect_timeout=1s");
    let begun = Instant::now();
    // The server's side of it accepts and says nothing.
    assert_refused(&url, ErrorKind::Unavailable, "did not answer within 1 s").await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let closed = ports::closed();
    let place = format!("{}/machina", closed.local_addr().unwrap());
    let url = format!("postgres://alice:hunter2@{place}");
    assert_refused(&url, ErrorKind::Unavailable, &format!("`{place}` cannot be reached")).await;
    // Too long for a name, so that nobody is asked for it, who might take long to answer.
    let unknown = format!("postgres://alice:hunter2@{}.invalid/machina", "h".repeat(64));
    assert_refused(&unknown, ErrorKind::Unavailable, "cannot be reached").await;
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let schema = Schema::new();
    let number = schema.row("SELECT current_setting('server_version_num')").await;
    let way = Way::lying(&server(), &number, "140013").await;
    let url = schema.at(&way.url(&server()));
    assert_refused(&url, ErrorKind::Unsupported, "` is PostgreSQL 14.13, and 15 or later is needed").await;
    assert_eq!(schema.row("SELECT to_regnamespace(current_setting('search_path')) IS NULL").await, "true");
    let oldest = Way::lying(&server(), &number, "150000").await;
    machina_store::open(&schema.at(&oldest.url(&server()))).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let schema = Schema::new();
    drop(schema.open().await);
    schema
        .run(
            "INSERT INTO machina_migrations (version, description, success, checksum, execution_time) \
                VALUES (999, 'from the future', true, '', 0)",
        )
        .await;
    let error = machina_store::open(&schema.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("a newer Machina: it has schema 999, and this one knows only up to 4"), "{error}");
}

#[tokio::test]
async fn an_older_schema_is_brought_up_to_date_with_what_is_in_it() {
    let schema = Schema::new();
    schema.open().await.store.commit(&batch([put(&plain("a"))])).await.unwrap();
    schema
        .run(
            "DROP TABLE health_checks, health_rollups, calls, alerts, audit, replies CASCADE; \
                DROP VIEW mcp_servers, service_config_values, instance_status CASCADE; \
                DELETE FROM machina_migrations WHERE version >= 2",
        )
        .await;
    let store = schema.open().await.store;
    assert_eq!(store.load().await.unwrap().services.len(), 1);
    store.commit(&batch([put(&plain("b"))])).await.unwrap();
}

#[tokio::test]
async fn a_schema_that_was_altered_is_refused() {
    let schema = Schema::new();
    drop(schema.open().await);
    schema.run("UPDATE machina_migrations SET checksum = '\\x00'").await;
    let error = machina_store::open(&schema.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("cannot be brought up to date"), "{error}");
}

#[tokio::test]
async fn a_schema_of_another_program_is_left_alone() {
    let schema = Schema::new();
    schema.create().await;
    schema.run("CREATE TABLE services (url TEXT)").await;
    assert_refused(&schema.url(), ErrorKind::Invalid, "has a table `services` of another program").await;
    assert_eq!(
        schema.row("SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace").await,
        "1"
    );
}

#[tokio::test]
async fn certificates_are_checked_as_the_address_says() {
    let own = OwnPostgres::start();
    let (url, other) = (own.url(), OwnPostgres::start());
    let verified = |authority: &str| format!("{url}?sslmode=verify-full&sslrootcert={authority}&schema=m");
    let store = machina_store::open(&verified(own.authority())).await.unwrap().store;
    store.commit(&batch([put(&plain("a"))])).await.unwrap();
    assert_refused(&verified(other.authority()), ErrorKind::Invalid, "as `sslmode` and `sslrootcert` demand").await;
    assert_refused(&format!("{url}?sslmode=verify-full"), ErrorKind::Invalid, "as `sslmode` and `sslrootcert` demand")
        .await;
    assert_refused(&verified("/nowhere/ca.crt"), ErrorKind::Invalid, "`sslrootcert`: `/nowhere/ca.crt` cannot be read")
        .await;
    let required = machina_store::open(&format!("{url}?sslmode=require&schema=m")).await.unwrap().store;
    assert_eq!(required.load().await.unwrap().services.len(), 1);
}
