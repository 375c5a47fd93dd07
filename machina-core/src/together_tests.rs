//! Writers that wait, over a store whose commits a test holds up, counts and refuses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;
use crate::config::Config;
use crate::event::{EventKind, Next};
use crate::machina::Machina;
use crate::memory::MemoryStore;
use crate::model::{HttpEndpoint, Instance, Service, ServiceId};
use crate::store::{Backend, Change, Changes, EntryKind, Image, JournalQuery, Store};
use crate::{AdminState, clock};

/// Commits one batch for each permit, and says what a test wants it to say.
#[derive(Debug)]
struct Gate {
    store: Arc<MemoryStore>,
    permits: Semaphore,
    commits: AtomicUsize,
    /// The answer to all that come after so many.
    broken: Mutex<Option<(usize, ErrorKind)>>,
    /// A change of this service is refused in this way.
    refused: Mutex<Option<(&'static str, ErrorKind)>>,
}

impl Gate {
    fn new() -> Arc<Self> {
        let (store, permits) = (Arc::new(MemoryStore::new()), Semaphore::new(0));
        Arc::new(Self {
            store,
            permits,
            commits: AtomicUsize::new(0),
            broken: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    fn open(&self) {
        self.permits.add_permits(100_000);
    }
}

#[async_trait]
impl Store for Gate {
    async fn load(&self) -> Result<Image> {
        self.store.load().await
    }
    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        self.permits.acquire().await.unwrap().forget();
        let before = self.commits.fetch_add(1, Ordering::Relaxed);
        if let Some((after, kind)) = *self.broken.lock().unwrap()
            && before >= after
        {
            return Err(Error::new(kind, "it broke"));
        }
        let is = |change: &Change, name: &str| matches!(change, Change::PutService(put) if put.name().as_str() == name);
        let refused = *self.refused.lock().unwrap();
        if let Some((name, kind)) = refused
            && batch.changes.iter().any(|change| is(change, name))
        {
            return Err(Error::new(kind, format!("`{name}` is refused")));
        }
        self.store.commit(batch).await
    }
    async fn changes(&self, after: Revision) -> Result<Changes> {
        self.store.changes(after).await
    }
    async fn changed(&self) -> Result<()> {
        self.store.changed().await
    }
}

async fn open(gate: &Arc<Gate>, config: Config) -> Machina {
    let store: Arc<dyn Store> = gate.clone();
    let backend = Backend { store, journal: gate.store.clone(), ..Backend::of(MemoryStore::new()) };
    Machina::builder().config(config).backend(backend).open().await.unwrap()
}

/// What many ask for at once, the first of whom waits for the store already; by
/// the order in which they came.
async fn at_once(machina: &Machina, gate: &Gate, all: Vec<Mutation>) -> Vec<Outcome> {
    let (count, mut asked) = (all.len(), JoinSet::new());
    for (index, mutation) in all.into_iter().enumerate() {
        let system = machina.system().clone();
        asked.spawn(async move { (index, system.change(vec![mutation]).await) });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    gate.open();
    let mut outcomes = asked.join_all().await;
    outcomes.sort_by_key(|(index, _)| *index);
    assert_eq!(outcomes.len(), count);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn named(name: &str) -> ServiceSpec {
    ServiceSpec::new(name).unwrap()
}

fn registrations(count: usize) -> Vec<Mutation> {
    (0..count).map(|index| Mutation::Register(named(&format!("s{index}")))).collect()
}

fn kinds(outcomes: &[Outcome]) -> Vec<Option<ErrorKind>> {
    outcomes.iter().map(|outcome| outcome.as_ref().err().map(Error::kind)).collect()
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_committed_together() {
    let gate = Gate::new();
    let machina = open(&gate, Config::default()).await;
    let mut stream = machina.watch();
    let outcomes = at_once(&machina, &gate, registrations(200)).await;
    assert_eq!(gate.commits(), 2, "the first alone, and all who came meanwhile");
    for (index, outcome) in outcomes.iter().enumerate() {
        let applied = outcome.as_ref().unwrap();
        let expected = Revision(1 + u64::from(index > 0));
        let names: Vec<_> = applied.services.iter().map(|view| view.service().name().to_string()).collect();
        assert_eq!((applied.revision, names), (expected, vec![format!("s{index}")]));
        assert_eq!(applied.services[0].service().revision, expected);
    }
    for index in 0..200 {
        let Some(Next::Event(event)) = stream.try_next() else { panic!("there is an event of each") };
        assert!(matches!(event.kind, EventKind::ServiceRegistered), "{event:?}");
        assert_eq!(event.service.as_ref().unwrap().as_str(), format!("s{index}"));
    }
    let query = JournalQuery { limit: 500, ..JournalQuery::of(EntryKind::Audit) };
    assert_eq!(crate::Journal::read(&*gate.store, &query).await.unwrap().entries.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_changes_are_committed_together() {
    let gate = Gate::new();
    let machina = open(&gate, Config::default()).await;
    let outcomes = at_once(&machina, &gate, registrations(1 + 2 * CHANGES_MAX + 1)).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(gate.commits(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_alone() {
    let gate = Gate::new();
    let machina = open(&gate, Config::default()).await;
    let mut all = registrations(20);
    all[7] = Mutation::Register(named("s3"));
    all[9] = Mutation::Deregister { name: "nowhere".parse().unwrap(), expected: None };
    let mut wrong = named("wrong");
    wrong.instances = vec![Instance::new(HttpEndpoint::new("http://a.x/mcp"))];
    wrong.instances[0].weight = 0;
    all[11] = Mutation::Register(wrong);
    let outcomes = at_once(&machina, &gate, all).await;
    let mut expected = vec![None; 20];
    expected[7] = Some(ErrorKind::Conflict);
    expected[9] = Some(ErrorKind::NotFound);
    expected[11] = Some(ErrorKind::Invalid);
    assert_eq!(kinds(&outcomes), expected);
    assert_eq!(
        (machina.view().len(), gate.commits()),
        (17, 3),
        "the one that comes second waits until the first is there"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_takes_no_other_down() {
    for kind in [ErrorKind::Conflict, ErrorKind::Invalid, ErrorKind::Internal] {
        let gate = Gate::new();
        let machina = open(&gate, Config::default()).await;
        *gate.refused.lock().unwrap() = Some(("s77", kind));
        let outcomes = at_once(&machina, &gate, registrations(200)).await;
        let mut expected = vec![None; 200];
        expected[77] = Some(kind);
        assert_eq!(kinds(&outcomes), expected);
        assert_eq!(outcomes[77].as_ref().unwrap_err().message(), "`s77` is refused");
        assert_eq!(machina.view().len(), 199);
        assert!(gate.commits() < 20, "{}", gate.commits());
        let stored = gate.store.load().await.unwrap();
        assert_eq!((stored.services.len(), stored.revision), (199, machina.view().revision()));
        for (index, outcome) in outcomes.iter().enumerate().filter(|(index, _)| *index != 77) {
            let service = machina.get(&format!("s{index}")).unwrap();
            assert_eq!(service.service().revision, outcome.as_ref().unwrap().revision);
        }
    }
}

/// Another replica has taken a name, and this one has not heard of it yet.
#[tokio::test(start_paused = true)]
async fn a_conflict_with_another_replica_is_of_one_alone() {
    let gate = Gate::new();
    let machina = open(&gate, Config::default()).await;
    let now = clock::now();
    let theirs = Service {
        id: ServiceId::generate(),
        spec: named("s5"),
        revision: Revision::ZERO,
        created_at: now,
        updated_at: now,
        updated_by: "another".to_owned(),
    };
    let theirs = Batch { changes: vec![Change::PutService(Arc::new(theirs))], ..Batch::default() };
    let other = Arc::clone(&gate.store);
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        other.commit(&theirs).await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(at_once(&machina, &gate, registrations(10)), meanwhile);
    let failed: Vec<usize> = (0..10).filter(|index| outcomes[*index].is_err()).collect();
    assert_eq!(failed, [5], "{:?}", kinds(&outcomes));
    assert_eq!(outcomes[5].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(gate.store.load().await.unwrap().services.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn changes_of_one_thing_follow_each_other() {
    let gate = Gate::new();
    let machina = open(&gate, Config::default()).await;
    gate.permits.add_permits(1);
    let before = machina.register(named("one")).await.unwrap().service().revision;
    let update = |index: usize, expected| {
        let mut spec = named("one");
        spec.description = format!("the {index}th");
        Mutation::Update { name: "one".parse().unwrap(), spec, expected }
    };
    let outcomes = at_once(&machina, &gate, (0..5).map(|index| update(index, Some(before))).collect()).await;
    let mut expected = vec![Some(ErrorKind::Conflict); 5];
    expected[0] = None;
    assert_eq!(kinds(&outcomes), expected, "the first was at that revision, and the others are not");
    let outcomes = at_once(&machina, &gate, (5..10).map(|index| update(index, None)).collect()).await;
    let revisions: Vec<u64> = outcomes.iter().map(|outcome| outcome.as_ref().unwrap().revision.0).collect();
    assert_eq!(revisions, [3, 4, 5, 6, 7]);
    assert_eq!(machina.get("one").unwrap().service().spec.description, "the 9th");
}

/// What would be something else in another order is done in the order of arrival.
#[tokio::test(start_paused = true)]
async fn names_and_instances_are_given_in_the_order_of_arrival() {
    let gate = Gate::new();
    let machina = open(&gate, Config::default()).await;
    let shared = Instance::new(HttpEndpoint::new("http://a.x/mcp"));
    let with = |name: &str| {
        let mut spec = named(name);
        spec.instances = vec![shared.clone()];
        Mutation::Register(spec)
    };
    let name = |name: &str| -> ServiceName { name.parse().unwrap() };
    let all = vec![
        Mutation::Register(named("x")),
        with("a"),
        with("b"),
        Mutation::Update { name: name("x"), spec: named("y"), expected: None },
        Mutation::Register(named("x")),
        Mutation::Deregister { name: name("y"), expected: None },
        Mutation::Put(named("y")),
        Mutation::SetAdminState { name: name("y"), instance: None, admin_state: AdminState::Disabled, reason: None },
    ];
    let outcomes = at_once(&machina, &gate, all).await;
    assert_eq!(kinds(&outcomes), vec![None; 8]);
    let (view, ids) = (machina.view(), |name: &str| machina.get(name).unwrap().service().spec.instances[0].id);
    assert_eq!(ids("a"), shared.id);
    assert_ne!(ids("b"), shared.id);
    assert_eq!(view.get("y").unwrap().service().spec.admin_state, AdminState::Disabled);
    assert_eq!(view.services().map(|view| view.service().name().to_string()).collect::<Vec<_>>(), ["a", "b", "x", "y"]);
}

#[tokio::test(start_paused = true)]
async fn there_are_never_more_services_than_there_may_be() {
    let gate = Gate::new();
    let mut config = Config::default();
    config.limits.services_max = 10;
    let machina = open(&gate, config).await;
    let outcomes = at_once(&machina, &gate, registrations(15)).await;
    let expected: Vec<_> = (0..15).map(|index| (index >= 10).then_some(ErrorKind::Overloaded)).collect();
    assert_eq!(kinds(&outcomes), expected);
    assert_eq!(machina.view().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn of_a_store_that_fails_everyone_is_told() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Lost] {
        let gate = Gate::new();
        let machina = open(&gate, Config::default()).await;
        *gate.broken.lock().unwrap() = Some((0, kind));
        let outcomes = at_once(&machina, &gate, registrations(50)).await;
        assert_eq!(kinds(&outcomes), vec![Some(kind); 50]);
        assert_eq!(gate.commits(), 2, "nothing is tried again whose outcome is not known");
        assert_eq!(machina.view().len(), 0);
        *gate.broken.lock().unwrap() = None;
        assert_eq!(machina.register(named("next")).await.unwrap().service().revision, Revision(1));
    }
}

/// The halves of a batch are tried after it was refused; the second not, when the
/// store fails with the first.
#[tokio::test(start_paused = true)]
async fn what_was_not_tried_any_more_is_told_so() {
    let gate = Gate::new();
    let machina = open(&gate, Config::default()).await;
    *gate.refused.lock().unwrap() = Some(("s3", ErrorKind::Conflict));
    *gate.broken.lock().unwrap() = Some((2, ErrorKind::Unavailable));
    let outcomes = at_once(&machina, &gate, registrations(5)).await;
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    assert_eq!(kinds(&outcomes[1..]), vec![Some(ErrorKind::Unavailable); 4]);
    let untried = outcomes.iter().flat_map(|outcome| outcome.as_ref().err());
    assert_eq!(untried.filter(|error| error.message().contains("was not asked")).count(), 2);
    assert_eq!((machina.view().len(), gate.commits()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_given_up_while_it_waits_is_not_committed() {
    let gate = Gate::new();
    let machina = open(&gate, Config::default()).await;
    let core = Arc::clone(&machina.system().core);
    let principal = Arc::clone(&machina.system().principal);
    let first = machina.system().clone();
    let mut asked = JoinSet::new();
    asked.spawn(async move { first.change(registrations(1)).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let given_up = core.commit_together(&principal, vec![Mutation::Register(named("late"))]);
    assert!(tokio::time::timeout(Duration::from_millis(5), given_up).await.is_err());
    gate.open();
    assert!(asked.join_all().await.iter().all(Result::is_ok));
    machina.register(named("next")).await.unwrap();
    assert!(machina.get("late").is_none());
}
