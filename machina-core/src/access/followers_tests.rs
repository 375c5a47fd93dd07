use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::machina::Machina;
use crate::memory::MemoryStore;
use crate::model::{Definitions, GroupSpec, Instance, InstanceId, ServiceSpec};
use crate::store::{Backend, EntryKind, JournalQuery, Seen, Store};

async fn central(allow_commands: bool) -> Machina {
    let mut config = Config::default();
    config.access.allow_stdio_registration = allow_commands;
    Machina::builder().config(config).without_monitor().open().await.unwrap()
}

fn follower(machina: &Machina) -> Scoped {
    machina.scoped(Principal::new("someone", Role::Admin).remote())
}

fn service(record: Value) -> Service {
    let spec: ServiceSpec = serde_json::from_value(record).unwrap();
    let at = clock::now();
    let updated_by = "alice".to_owned();
    Service { id: ServiceId::generate(), spec, revision: Revision::ZERO, created_at: at, updated_at: at, updated_by }
}

fn web(url: &str) -> Service {
    let id = InstanceId::generate();
    service(json!({"name": "web", "instances": [{"id": id, "from_outside": true, "http": {"url": url}}]}))
}

async fn put(scoped: &Scoped, service: &Service) -> Result<Revision> {
    commit(scoped, [Change::PutService(Arc::new(service.clone()))]).await
}

async fn commit(scoped: &Scoped, changes: impl IntoIterator<Item = Change>) -> Result<Revision> {
    scoped.commit_batch(Batch { changes: changes.into_iter().collect(), ..Batch::default() }).await
}

async fn refused(scoped: &Scoped, service: &Service) -> Error {
    let before = scoped.revision();
    let error = put(scoped, service).await.unwrap_err();
    assert_eq!(scoped.revision(), before, "{error}");
    error
}

async fn audit(machina: &Machina) -> Vec<(String, String, Value)> {
    let page = machina.journal(&JournalQuery::of(EntryKind::Audit)).await.unwrap();
    let entries = page.entries.into_iter().map(|entry| match entry.what {
        What::Audit { principal, action, detail } => (principal, action, detail),
        other => panic!("{other:?}"),
    });
    entries.collect()
}

#[tokio::test]
async fn what_is_committed_is_read_as_it_was() {
    let machina = central(false).await;
    let follower = follower(&machina);
    let mut web = web("https://web.example/mcp");
    web.revision = put(&follower, &web).await.unwrap();
    let group = Group::new(GroupSpec::new("g").unwrap(), clock::now(), "alice");
    let revision = commit(&follower, [Change::PutGroup(Arc::new(group.clone()))]).await.unwrap();
    let image = follower.image().unwrap();
    assert_eq!((image.revision, &image.services[..]), (revision, &[Arc::new(web.clone())][..]));
    assert_eq!(image.groups, [Arc::new(group.at_revision(revision))]);
    assert_eq!(machina.get("web").unwrap().service().spec, web.spec);
    let Changes::Tail(tail) = follower.changes_after(web.revision).await.unwrap() else { panic!() };
    assert_eq!(tail.len(), 1);
    assert_eq!(follower.generation().unwrap(), follower.generation().unwrap());
}

#[tokio::test]
async fn the_audit_trail_names_who_follows() {
    let machina = central(false).await;
    let follower = follower(&machina);
    let mut web = web("https://web.example/mcp");
    let forged = What::Audit { principal: "system".into(), action: "nothing".into(), detail: json!({}) };
    let entries = vec![Entry { at: clock::now(), service: None, instance: None, what: forged }];
    let changes = vec![Change::PutService(Arc::new(web.clone()))];
    follower.commit_batch(Batch { changes, entries, ..Batch::default() }).await.unwrap();
    web.spec.title = Some("Web".into());
    web.spec.name = ServiceName::new("renamed").unwrap();
    put(&follower, &web).await.unwrap();
    commit(&follower, [Change::DeleteService { id: web.id, name: web.name().clone() }]).await.unwrap();
    let all = audit(&machina).await;
    let actions: Vec<_> = all.iter().rev().map(|(principal, action, _)| (&**principal, &**action)).collect();
    let by = |action| ("someone", action);
    assert_eq!(actions, [by("register"), by("rename"), by("update"), by("deregister")]);
    assert_eq!(all[1].2, json!({"fields": ["name", "title"], "follower": "alice"}));
}

#[tokio::test]
async fn no_command_and_no_address_is_smuggled_in() {
    let machina = central(false).await;
    let follower = follower(&machina);
    let id = InstanceId::generate();
    for (instance, says) in [
        (json!({"stdio": {"command": "sh"}}), "is a command"),
        (json!({"http": {"url": "http://127.0.0.1:1/mcp"}}), "is not taken"),
        (json!({"http": {"url": "http://169.254.169.254/"}}), "is not taken"),
        (json!({"http": {"url": "https://a.example/?k=${env:KEY}"}}), "has a placeholder"),
    ] {
        let mut instance = instance;
        (instance["id"], instance["from_outside"]) = (json!(id), true.into());
        let error = refused(&follower, &service(json!({"name": "a", "instances": [instance]}))).await;
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
        assert!(error.message().contains(says), "{error}");
    }
    let mut inside = web("https://web.example/mcp");
    inside.spec.instances[0].from_outside = false;
    let error = refused(&follower, &inside).await;
    assert!(error.kind() == ErrorKind::Forbidden && error.message().contains("from_outside"), "{error}");
    let probed = json!({"name": "a", "health_policy": {"endpoints": ["http://127.0.0.1:1/x"]}});
    assert_eq!(refused(&follower, &service(probed)).await.kind(), ErrorKind::Forbidden);
    assert!(machina.view().is_empty());

    let allowing = central(true).await;
    let command = service(json!({"name": "a", "instances": [{"id": id, "stdio": {"command": "sh"}}]}));
    put(&super::tests::follower(&allowing), &command).await.unwrap();
}

#[tokio::test]
async fn what_was_declared_inside_stays_as_it_is() {
    let machina = central(false).await;
    let spec = json!({"name": "disk", "env": {"A": "b"}, "instances": [
        {"stdio": {"command": "disk", "args": ["x"]}}, {"http": {"url": "http://127.0.0.1:1/mcp"}}]});
    machina.register(ServiceSpec::from_value(spec).unwrap()).await.unwrap();
    let follower = follower(&machina);
    let known = Service::clone(&follower.image().unwrap().services[0]);
    let mut titled = known.clone();
    titled.spec.title = Some("Disk".into());
    put(&follower, &titled).await.unwrap();

    type Change = fn(&mut Service);
    let changes: [(Change, ErrorKind); 8] = [
        (|s| s.spec.instances[0].endpoint = Instance::new(stdio("sh")).endpoint, ErrorKind::Invalid),
        (|s| s.spec.instances[0] = Instance::new(stdio("sh")), ErrorKind::Forbidden),
        (|s| drop(s.spec.env.insert("B".into(), crate::Sensitive::secret("c"))), ErrorKind::Invalid),
        (|s| s.spec.instances[1].from_outside = true, ErrorKind::Forbidden),
        (|s| s.created_at = clock::now(), ErrorKind::Invalid),
        (|s| s.updated_by = "x".repeat(201), ErrorKind::Invalid),
        (|s| s.updated_by = "a\nb".into(), ErrorKind::Invalid),
        (|s| s.spec.admin_reason = Some("enabled for a reason".into()), ErrorKind::Invalid),
    ];
    for (index, (change, kind)) in changes.into_iter().enumerate() {
        let mut changed = titled.clone();
        change(&mut changed);
        let error = refused(&follower, &changed).await;
        assert_eq!(error.kind(), kind, "{index}: {error}");
    }
}

fn stdio(command: &str) -> crate::StdioEndpoint {
    serde_json::from_value(json!({ "command": command })).unwrap()
}

#[tokio::test]
async fn a_record_that_could_not_be_registered_is_refused() {
    let machina = central(false).await;
    let follower = follower(&machina);
    let mut wrong = web("https://web.example/mcp");
    wrong.spec.instances[0].weight = 0;
    let error = refused(&follower, &wrong).await;
    assert_eq!(error.context().problems[0].field, "changes[0].instances[0].weight");
    let masked = service(json!({"name": "a", "env": {"TOKEN": "********"}}));
    assert_eq!(refused(&follower, &masked).await.kind(), ErrorKind::Invalid);
    let web = web("https://web.example/mcp");
    let wrong_name = Change::DeleteService { id: web.id, name: ServiceName::new("other").unwrap() };
    let error = commit(&follower, [Change::PutService(Arc::new(web)), wrong_name]).await.unwrap_err();
    assert_eq!(error.context().problems[0].field, "changes[1].name");
    assert!(machina.view().is_empty());
}

#[tokio::test]
async fn definitions_are_as_large_as_an_instance_may_publish() {
    let machina = central(false).await;
    let follower = follower(&machina);
    let web = web("https://web.example/mcp");
    put(&follower, &web).await.unwrap();
    let definitions = |prompts: Vec<Value>| Definitions {
        protocol_version: "2025-11-25".into(),
        server_info: json!({}),
        instructions: None,
        capabilities: json!({}),
        tools: Vec::new(),
        rejected: Vec::new(),
        prompts,
        resources: Vec::new(),
        resource_templates: Vec::new(),
        listed_at: clock::now(),
    };
    let (service, instance) = (web.id, web.spec.instances[0].id);
    let change = |prompts| Change::PutDefinitions { service, instance, definitions: Arc::new(definitions(prompts)) };
    commit(&follower, [change(vec![json!({"name": "p"})])]).await.unwrap();
    assert_eq!(follower.image().unwrap().definitions.len(), 1);
    for prompts in [vec![json!({}); 1001], vec![json!({"name": "x".repeat(64 * 1024)})]] {
        let error = commit(&follower, [change(prompts)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.context().problems[0].field.starts_with("changes[0].prompts"), "{error}");
    }
}

#[tokio::test]
async fn limits_hold_for_followers_too() {
    let mut config = Config::default();
    (config.limits.services_max, config.limits.groups_max, config.limits.batch_max) = (1, 1, 2);
    let machina = Machina::builder().config(config).without_monitor().open().await.unwrap();
    let follower = follower(&machina);
    let named = |name: &str| Change::PutService(Arc::new(service(json!({ "name": name }))));
    let group =
        |name: &str| Change::PutGroup(Arc::new(Group::new(GroupSpec::new(name).unwrap(), clock::now(), "alice")));
    for changes in [[named("a"), named("b")], [group("a"), group("b")]] {
        assert_eq!(commit(&follower, changes).await.unwrap_err().kind(), ErrorKind::Overloaded);
    }
    let error = commit(&follower, [named("a"), named("b"), named("c")]).await.unwrap_err();
    assert_eq!(error.context().problems[0].field, "changes");
    commit(&follower, [named("a"), group("a")]).await.unwrap();
}

#[tokio::test]
async fn only_an_admin_of_all_tenants_follows_and_only_replicas_write_health() {
    let machina = central(false).await;
    for principal in [Principal::new("d", Role::Developer), Principal::new("a", Role::Admin).of_tenant("acme")] {
        let scoped = machina.scoped(principal.remote());
        let all = [
            scoped.image().map(drop),
            scoped.generation().map(drop),
            scoped.changes_after(Revision::ZERO).await.map(drop),
            commit(&scoped, []).await.map(drop),
        ];
        assert!(all.into_iter().all(|one| one.unwrap_err().kind() == ErrorKind::Forbidden));
    }
    let follower = follower(&machina);
    let seen = Seen { instance: InstanceId::generate(), last_check: None, heartbeat: None };
    let error = commit(&follower, [Change::Seen([seen].into())]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let replica = crate::ReplicaId::generate();
    let holds = Batch { preconditions: vec![Precondition::Holds { shard: 0, replica, epoch: 1 }], ..Batch::default() };
    assert_eq!(follower.commit_batch(holds).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn what_is_written_where_another_is_followed_comes_from_outside() {
    let machina = Machina::builder().following().without_monitor().open().await.unwrap();
    let spec = json!({"name": "web", "instances": [{"http": {"url": "https://web.example/"}, "lease_ttl": "5s"}]});
    machina.register(ServiceSpec::from_value(spec).unwrap()).await.unwrap();
    assert!(machina.get("web").unwrap().service().spec.instances[0].from_outside);
    assert_eq!(machina.system().heartbeat("web", None).unwrap_err().kind(), ErrorKind::Unsupported);
    let command = ServiceSpec::new("disk").unwrap().instance(Instance::new(stdio("disk")));
    assert_eq!(machina.register(command).await.unwrap_err().kind(), ErrorKind::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn nobody_expires_where_another_is_followed() {
    let machina = Machina::builder().following().open().await.unwrap();
    let spec = json!({"name": "web", "instances": [{"http": {"url": "https://web.example/"}, "lease_ttl": "5s"}]});
    machina.register(ServiceSpec::from_value(spec).unwrap()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3600 * 2)).await;
    let health = machina.health("web").await.unwrap();
    assert_ne!(health.instances[0].health.state, crate::HealthState::Expired);
}

#[tokio::test]
async fn commands_of_the_followed_are_not_started() {
    use crate::health::ReasonCode;
    let first = central(true).await;
    let command = ServiceSpec::new("disk").unwrap().instance(Instance::new(stdio("disk")));
    first.register(command).await.unwrap();
    let image = first.system().image().unwrap();
    let store = crate::MemoryStore::holding(&image).unwrap();
    let machina = Machina::builder().backend(crate::Backend::of(store)).following().open().await.unwrap();
    let call = crate::testing::registry_suite::call("disk", "x", json!({}));
    for _ in 0..200 {
        let health = machina.health("disk").await.unwrap();
        if health.instances[0].health.reason.code == ReasonCode::Elsewhere {
            let error = machina.call(&call, &crate::CallOptions::default()).await.unwrap_err();
            assert!(error.message().contains("allow_stdio_registration"), "{error}");
            return machina.close().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{:?}", machina.health("disk").await);
}

/// A store whose whole content can be replaced, as by a backup.
#[derive(Debug)]
struct Replaceable {
    inner: std::sync::Mutex<Arc<MemoryStore>>,
    replaced: AtomicBool,
}

impl Replaceable {
    fn inner(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.inner.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl Store for Replaceable {
    async fn load(&self) -> Result<Image> {
        self.replaced.store(false, Ordering::SeqCst);
        self.inner().load().await
    }

    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        self.inner().commit(batch).await
    }

    async fn changes(&self, after: Revision) -> Result<Changes> {
        if self.replaced.load(Ordering::SeqCst) { Ok(Changes::Reload) } else { self.inner().changes(after).await }
    }

    async fn changed(&self) -> Result<()> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_replaced_is_another_generation_and_what_others_committed_is_known() {
    let (store, other) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let replaceable = Arc::new(Replaceable { inner: std::sync::Mutex::new(store.clone()), replaced: false.into() });
    let backend = Backend { store: replaceable.clone(), ..Backend::of(MemoryStore::new()) };
    let machina = Machina::builder().backend(backend).without_monitor().open().await.unwrap();
    let follower = follower(&machina);
    let before = follower.generation().unwrap();

    // Committed by another replica, and known to the follower before it is known here.
    let mut web = web("https://web.example/mcp");
    let put = |service: &Service| Batch {
        preconditions: vec![Precondition::Absent(service.name().clone())],
        changes: vec![Change::PutService(Arc::new(service.clone()))],
        ..Batch::default()
    };
    web.revision = store.commit(&put(&web)).await.unwrap();
    web.spec.title = Some("Web".into());
    let update = Batch {
        preconditions: vec![Precondition::AtRevision(web.id, web.revision)],
        changes: vec![Change::PutService(Arc::new(web))],
        ..Batch::default()
    };
    assert_eq!(follower.commit_batch(update).await.unwrap(), Revision(2));
    assert_eq!(follower.generation().unwrap(), before);

    other.commit(&put(&service(json!({"name": "other"})))).await.unwrap();
    *replaceable.inner.lock().unwrap() = other;
    replaceable.replaced.store(true, Ordering::SeqCst);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(machina.get("other").is_some() && machina.get("web").is_none());
    assert_ne!(follower.generation().unwrap(), before);
}
