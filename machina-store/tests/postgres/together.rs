//! Many writers at once: they come to few transactions, and each is told what came
//! of its own change.

use std::collections::BTreeSet;
use std::time::Duration;

use machina_core::{Error, ErrorKind, EventKind, EventStream, Machina, Next, Result, Revision, ServiceSpec};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::schema::Schema;
use super::server::OwnPostgres;

/// How long anything may take on a slow machine.
const LONG: Duration = Duration::from_secs(60);

async fn machina(url: &str) -> Machina {
    Machina::builder().backend(machina_store::open(url).await.unwrap()).open().await.unwrap()
}

async fn register(machina: Machina, name: String) -> (String, Result<Revision>) {
    let registered = machina.register(ServiceSpec::new(&name).unwrap()).await;
    (name, registered.map(|view| view.service().revision))
}

fn registering(machina: &Machina, count: usize) -> JoinSet<(String, Result<Revision>)> {
    (0..count).map(|index| register(machina.clone(), format!("n{index}"))).collect()
}

/// The names of the services that a stream tells of, until there are so many.
async fn told(stream: &mut EventStream, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < count {
        match timeout(LONG, stream.next()).await.expect("every change is told") {
            Next::Event(event) if matches!(event.kind, EventKind::ServiceRegistered) => {
                names.push(event.service.as_ref().unwrap().to_string());
            }
            Next::Event(_) => {}
            Next::Resync => panic!("a gap"),
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_come_to_few_transactions() {
    const WRITERS: usize = 200;
    let schema = Schema::new();
    let (a, b) = (machina(&schema.url()).await, machina(&schema.url()).await);
    let mut streams = [a.watch(), b.watch()];
    // Whoever holds the counter holds up the first of them, and one of the other replica.
    let mut holding = schema.connection().await;
    sqlx::raw_sql("BEGIN; UPDATE meta SET revision = revision").execute(&mut holding).await.unwrap();
    let theirs = tokio::time::timeout(LONG, register(b.clone(), "n77".to_owned()));
    let writers = registering(&a, WRITERS);
    let released = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut holding).await.unwrap();
    };
    let (theirs, answers, ()) = tokio::join!(theirs, writers.join_all(), released);
    let answers: Vec<_> = answers.into_iter().chain([theirs.unwrap()]).collect();
    let failed: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_err()).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let (name, error) = (&failed[0].0, failed[0].1.as_ref().unwrap_err());
    assert_eq!((name.as_str(), error.kind()), ("n77", ErrorKind::Conflict), "{error}");
    let image = schema.open().await.store.load().await.unwrap();
    assert_eq!(image.services.len(), WRITERS);
    eprintln!("{} changes in {} transactions", WRITERS, image.revision);
    assert!(image.revision.0 <= 20, "{} transactions", image.revision);
    for (name, revision) in answers.iter().filter_map(|(name, answer)| Some((name, *answer.as_ref().ok()?))) {
        let service = image.services.iter().find(|service| service.name().as_str() == name).unwrap();
        assert_eq!(service.revision, revision, "{name}");
    }
    for stream in &mut streams {
        let names = told(stream, WRITERS).await;
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), WRITERS, "each is told once");
    }
    let audited = schema.row("SELECT count(*), count(DISTINCT service) FROM audit").await;
    assert_eq!(audited, format!("{WRITERS}|{WRITERS}"));
    for machina in [a, b] {
        machina.close().await;
    }
}

/// Whatever the server had done of a batch when it was killed: all of it is there or
/// nothing, and what each writer was told is true.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_server_that_is_killed_every_writer_is_told() {
    const WRITERS: usize = 40;
    let mut own = OwnPostgres::start();
    let url = format!("{}?connect_timeout=1s", own.url());
    let a = machina(&url).await;
    // Each writes on until it is refused.
    let one = async |writer: usize| {
        let mut answers = Vec::new();
        while answers.last().is_none_or(|(_, answer): &(String, Result<Revision>)| answer.is_ok()) {
            answers.push(register(a.clone(), format!("n{writer}-{}", answers.len())).await);
        }
        answers
    };
    let writers = futures_util::future::join_all((0..WRITERS).map(one));
    let killed = async {
        while a.view().len() < 2 * WRITERS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::spawn_blocking(move || {
            own.order("kill");
            own
        })
        .await
        .unwrap()
    };
    let (answers, mut own) =
        timeout(LONG, async { tokio::join!(writers, killed) }).await.expect("everyone is answered");
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    own.order("start");
    let image = machina_store::open(&url).await.unwrap().store.load().await.unwrap();
    let there = |name: &str| image.services.iter().find(|service| service.name().as_str() == name);
    let is_unknown = |error: &Error| error.message().contains("not known");
    let mut unknown = BTreeSet::new();
    for (name, answer) in &answers {
        match (answer, there(name)) {
            (Ok(revision), Some(service)) => assert_eq!(service.revision, *revision, "{name}"),
            (Ok(revision), None) => panic!("{name} was committed at {revision} and is not there"),
            (Err(error), Some(service)) => {
                assert!(is_unknown(error), "{name} is there, and was refused: {error}");
                unknown.insert(service.revision);
            }
            (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    let taken: BTreeSet<Revision> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok().copied()).collect();
    assert!(taken.is_disjoint(&unknown), "a batch was told to some of its writers as committed, and to others not");
    if answers.iter().any(|(name, answer)| answer.as_ref().is_err_and(is_unknown) && there(name).is_none()) {
        assert!(unknown.is_empty(), "half a batch is there");
    }
    assert_eq!(answers.iter().filter(|(_, answer)| answer.is_err()).count(), WRITERS);
    eprintln!("{} changes were taken in {} transactions", image.services.len(), image.revision);
    timeout(LONG, async {
        while a.register(ServiceSpec::new("after").unwrap()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("it goes on when the server is there again");
    a.close().await;
}
