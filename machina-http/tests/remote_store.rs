//! A store that is reached over HTTP behaves as every store does; a Machina that
//! follows another one sees what changes there, survives its absence, and cannot
//! have it do what may not be asked for from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/ports.rs"]
mod ports;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use machina_core::testing::SimConnector;
use machina_core::testing::registry_suite::{call, settle};
use machina_core::{
    Backend, CallOptions, Config, EntryKind, ErrorKind, JournalQuery, Machina, MemoryStore, Revision, ServiceSpec,
    Status, Tasks, What,
};
use machina_http::{Client, RemoteStore, ServerConfig, router, serve};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// A Machina that is served and may be followed.
#[derive(Debug)]
struct Central {
    machina: Machina,
    address: SocketAddr,
    tasks: Tasks,
}

impl Central {
    /// One that watches nothing, in which whatever is committed was committed from outside.
    async fn start(config: Config) -> Self {
        let machina = Machina::builder().config(config).without_monitor().open().await.unwrap();
        Self::of(machina, "127.0.0.1:0", true).await
    }

    async fn of(machina: Machina, address: &str, remote_stores: bool) -> Self {
        let listener = ports::listen(address).await;
        let address = listener.local_addr().unwrap();
        let config = ServerConfig { remote_stores, ..ServerConfig::default() };
        let (tasks, router) = (Tasks::new(), router(machina.clone(), &config));
        let stop = tasks.clone();
        let serving = serve(listener, router, &config, async move { stop.cancelled().await });
        drop(Tasks::new().spawn("serve", async move { serving.await.unwrap() }));
        Self { machina, address, tasks }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn store(&self) -> RemoteStore {
        RemoteStore::new(Client::new(&self.url()).unwrap())
    }

    async fn put(&self, record: Value) {
        let mutation = machina_core::Mutation::Put(ServiceSpec::from_value(record).unwrap());
        self.machina.apply(vec![mutation]).await.unwrap();
    }

    async fn send(&self, method: &str, path: &str, headers: HeaderMap, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = reqwest::Client::new().request(method, format!("{}/api/v1/{path}", self.url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.headers(headers).send().await.unwrap();
        let status = response.status().as_u16();
        assert_eq!(response.headers()["cache-control"], "no-store");
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }
}

impl Drop for Central {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// One that lets followers declare whatever they want to.
fn trusting() -> Config {
    let mut config = Config::default();
    config.access.allow_stdio_registration = true;
    config
}

mod behaves_as_every_store_does {
    use machina_core::Backend;

    use super::{Central, trusting};

    struct Fixture {
        backend: Backend,
        _central: Central,
    }

    impl AsRef<Backend> for Fixture {
        fn as_ref(&self) -> &Backend {
            &self.backend
        }
    }

    async fn remote() -> Fixture {
        let central = Central::start(trusting()).await;
        Fixture { backend: central.store().backend(), _central: central }
    }

    machina_core::store_suite!(remote().await);
    machina_core::replies_suite!(remote().await);
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came: {what}");
}

async fn follower(central: &Central, sim: &SimConnector) -> Machina {
    let backend = central.store().backend();
    Machina::builder().backend(backend).connector(Arc::new(sim.clone())).following().open().await.unwrap()
}

#[tokio::test]
async fn a_follower_sees_what_changes_and_writes_what_all_see() {
    let central = Central::start(Config::default()).await;
    central.put(json!({"name": "a", "env": {"TOKEN": "hunter2"}})).await;
    let follower = follower(&central, &SimConnector::default()).await;
    let known = follower.get("a").unwrap();
    assert_eq!(known.service().spec.env["TOKEN"].expose(), "hunter2");
    assert_eq!(follower.view().revision(), Revision(1));

    central.put(json!({"name": "b"})).await;
    let begun = tokio::time::Instant::now();
    until("b", async || follower.get("b").is_some()).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    let web = json!({"name": "web", "instances": [{"http": {"url": "https://web.example/mcp"}}]});
    follower.register(ServiceSpec::from_value(web).unwrap()).await.unwrap();
    let (here, there) = (follower.get("web").unwrap(), central.machina.get("web").unwrap());
    assert_eq!(here.service(), there.service());
    assert!(there.service().spec.instances[0].from_outside);
    follower.deregister("a").await.unwrap();
    assert!(central.machina.get("a").is_none());

    let audited = |page: machina_core::JournalPage| {
        let entries = page.entries.into_iter().map(|entry| match entry.what {
            What::Audit { principal, action, .. } => (principal, action),
            other => panic!("{other:?}"),
        });
        entries.collect::<Vec<_>>()
    };
    let query = JournalQuery { limit: 2, ..JournalQuery::of(EntryKind::Audit) };
    let by = |who: &str, action: &str| (who.to_owned(), action.to_owned());
    let there = audited(central.machina.journal(&query).await.unwrap());
    assert_eq!(there, [by("local", "deregister"), by("local", "register")]);
    let here = audited(follower.journal(&query).await.unwrap());
    assert_eq!(here, [by("system", "deregister"), by("system", "register")]);
    follower.close().await;
}

#[tokio::test]
async fn a_follower_probes_routes_and_tells_what_instances_publish() {
    let (central, sim) = (Central::start(Config::default()).await, SimConnector::default());
    let instance = serde_json::to_value(sim.instance("one")).unwrap();
    central.put(json!({"name": "clock", "instances": [instance]})).await;
    let follower = follower(&central, &sim).await;
    settle(&follower, "clock", Status::Healthy).await;
    let answer = follower.call(&call("clock", "echo", json!({"text": "hi"})), &CallOptions::default()).await.unwrap();
    assert!(answer.result.text().contains("hi"));
    until("its tools are known there", async || central.machina.get("clock").unwrap().tools().len() == 2).await;
    follower.close().await;
}

#[tokio::test]
async fn without_the_central_one_reads_and_calls_go_on_and_writes_come_back_with_it() {
    let store = Arc::new(MemoryStore::new());
    let backend = || Backend { store: store.clone(), journal: store.clone(), ..Backend::of(MemoryStore::new()) };
    let open = async || Machina::builder().backend(backend()).without_monitor().open().await.unwrap();
    let (central, sim) = (Central::of(open().await, "127.0.0.1:0", true).await, SimConnector::default());
    let instance = serde_json::to_value(sim.instance("one")).unwrap();
    central.put(json!({"name": "clock", "instances": [instance]})).await;
    let follower = follower(&central, &sim).await;
    settle(&follower, "clock", Status::Healthy).await;

    let address = central.address.to_string();
    drop(central);
    let late = || ServiceSpec::new("late").unwrap();
    until("it is away", async || tokio::net::TcpStream::connect(&address).await.is_err()).await;
    let refused = follower.register(late()).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Unavailable && refused.message().contains("is away"), "{refused}");
    assert!(follower.get("clock").is_some() && follower.get("late").is_none());
    let echo = call("clock", "echo", json!({"text": "still"}));
    assert!(follower.call(&echo, &CallOptions::default()).await.unwrap().result.text().contains("still"));

    let central = Central::of(open().await, &address, true).await;
    central.put(json!({"name": "new"})).await;
    until("what was registered meanwhile", async || follower.get("new").is_some()).await;
    follower.register(late()).await.unwrap();
    assert!(central.machina.get("late").is_some());
    follower.close().await;
}

#[tokio::test]
async fn a_central_one_that_has_forgotten_everything_is_followed_too() {
    let open = async || Machina::builder().without_monitor().open().await.unwrap();
    let central = Central::of(open().await, "127.0.0.1:0", true).await;
    for name in ["a", "b", "c"] {
        central.put(json!({ "name": name })).await;
    }
    let follower = follower(&central, &SimConnector::default()).await;
    let address = central.address.to_string();
    drop(central);
    let machina = open().await;
    for title in ["1", "2", "3"] {
        let spec = ServiceSpec::from_value(json!({"name": "other", "title": title})).unwrap();
        machina.apply(vec![machina_core::Mutation::Put(spec)]).await.unwrap();
    }
    let central = Central::of(machina, &address, true).await;
    // The revisions are the same, and mean something else.
    until("the other", async || follower.get("other").is_some() && follower.get("a").is_none()).await;
    central.put(json!({"name": "next"})).await;
    until("the next", async || follower.get("next").is_some()).await;
    follower.close().await;
}

#[tokio::test]
async fn nothing_is_smuggled_in_over_the_wire() {
    let central = Central::start(Config::default()).await;
    let service = |spec: Value| {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let at = "2026-01-01T00:00:00Z";
        json!({"changes": [{"put_service": {"id": id, "revision": 0, "created_at": at, "updated_at": at,
            "updated_by": "x", "spec": spec}}]})
    };
    let instance = |endpoint: &str, value: Value| {
        let mut instance = json!({"id": "01890a5d-ac96-774b-bcce-b302099a8058", "from_outside": true});
        instance[endpoint] = value;
        service(json!({"name": "a", "instances": [instance]}))
    };
    let mut inside = instance("http", json!({"url": "https://a.example/"}));
    inside["changes"][0]["put_service"]["spec"]["instances"][0]["from_outside"] = false.into();
    let cases = [
        (403, instance("stdio", json!({"command": "sh", "args": ["-c", "id"]}))),
        (403, instance("http", json!({"url": "http://127.0.0.1:22/"}))),
        (403, instance("http", json!({"url": "https://a.example/${HOME}"}))),
        (403, inside),
        (422, service(json!({"name": "a", "tags": [""]}))),
        (422, service(json!({"name": "A B"}))),
        (422, service(json!({"name": "a", "colour": 1}))),
        (422, service(json!({"name": "a", "env": {"TOKEN": "********"}}))),
        (422, json!({"changes": [{"drop_table": {}}]})),
        (422, json!({"changes": [], "entries": []})),
        (501, json!({"changes": [{"seen": []}]})),
    ];
    for (status, batch) in cases {
        let (got, body) = central.send("POST", "store/batches", HeaderMap::new(), Some(batch.clone())).await;
        assert_eq!(got, status, "{batch} {body}");
    }
    assert_eq!(central.machina.view().revision(), Revision(0));
    let (got, body) =
        central.send("POST", "store/batches", HeaderMap::new(), Some(service(json!({"name": "a"})))).await;
    assert_eq!((got, &body), (200, &json!({"revision": 1})));
    let wrong = service(json!({"name": "b", "instances": [{"http": {"url": "https://a.example/"}, "weight": 0}]}));
    let (_, body) = central.send("POST", "store/batches", HeaderMap::new(), Some(wrong)).await;
    assert_eq!(body["errors"][0]["pointer"], "#/changes/0/instances/0/weight", "{body}");
}

#[tokio::test]
async fn the_store_is_served_to_whom_it_may_be_served() {
    let open = async || Machina::builder().without_monitor().open().await.unwrap();
    let closed = Central::of(open().await, "127.0.0.1:0", false).await;
    let central = Central::of(open().await, "127.0.0.1:0", true).await;
    let requests = [
        ("GET", "store/image", None),
        ("GET", "store/changes?after=0", None),
        ("POST", "store/batches", Some(json!({}))),
    ];
    for (method, path, body) in requests {
        let (status, answer) = closed.send(method, path, HeaderMap::new(), body.clone()).await;
        assert!(status == 403 && answer["detail"].as_str().unwrap().contains("server.remote_stores"), "{answer}");
        for (name, value) in [("origin", "http://localhost:3000"), ("sec-fetch-site", "same-origin")] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let (status, answer) = central.send(method, path, headers, body.clone()).await;
            assert!(status == 403 && answer["detail"].as_str().unwrap().contains("web pages"), "{answer}");
        }
        let (status, answer) = central.send(method, path, HeaderMap::new(), body).await;
        assert_eq!(status, 200, "{answer}");
    }
    for path in ["store/changes", "store/changes?after=x", "store/image?x=1"] {
        assert_eq!(central.send("GET", path, HeaderMap::new(), None).await.0, 400, "{path}");
    }
    let refused = Machina::builder().backend(closed.store().backend()).following().open().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
}
