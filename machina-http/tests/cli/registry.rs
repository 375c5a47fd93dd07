//! The registry API of `machina serve`, and `machina registry sync` from one
//! Machina to another.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::world::{Served, World};

fn far(path: &str) -> Value {
    json!({"type": "http", "url": format!("http://127.0.0.1:9/{path}")})
}

/// A Machina that is served with a program and two addresses.
async fn there(world: &World) -> Served {
    let hosts = world.hosts("hosts.json", json!({"a": far("1"), "b": far("1"), "small": world.server(&[])}));
    let mut served = Served::start(world, &["--import", &hosts]).await;
    served.until("Settled in").await;
    served
}

#[tokio::test]
async fn a_served_machina_is_a_registry_that_any_page_may_read() {
    let world = World::new();
    let served = there(&world).await;
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let mut request =
            Client::builder().no_proxy().build().unwrap().request(method, format!("{}{path}", served.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    let page = [("origin", "https://somewhere.example")];
    let list = ask(Method::GET, "/v0.1/servers?search=SMALL", &page).await;
    assert_eq!((list.status().as_u16(), &list.headers()["access-control-allow-origin"]), (200, &"*".parse().unwrap()));
    let list: Value = list.json().await.unwrap();
    assert_eq!(list["metadata"], json!({"count": 1}));
    assert_eq!(list["servers"][0]["server"]["name"], "local.machina/small");
    let health = &list["servers"][0]["_meta"]["dev.machina/health"];
    assert_eq!((&health["status"], &health["tool_count"]), (&json!("healthy"), &json!(5)), "{health}");
    assert!(health["protocol_version"].is_string() && health["last_check"].is_string(), "{health}");
    let one = ask(Method::GET, "/v0/servers/local.machina%2Fsmall/versions/latest", &[]).await;
    let mut one = one.json::<Value>().await.unwrap()["server"].take();
    assert!(one.as_object_mut().unwrap().remove("_meta").is_some(), "what the format cannot say");
    assert_eq!(one, list["servers"][0]["server"], "a page of another site is told the rest");
    let preflight = [page[0], ("access-control-request-method", "GET")];
    let preflight = ask(Method::OPTIONS, "/v0.1/servers", &preflight).await;
    assert_eq!(
        (preflight.status().as_u16(), &preflight.headers()["access-control-allow-origin"]),
        (204, &"*".parse().unwrap())
    );
    // Under a foreign name it is not asked, and the rest is not for foreign pages.
    assert_eq!(ask(Method::GET, "/v0.1/servers", &[("host", "evil.example")]).await.status(), 403);
    assert_eq!(ask(Method::GET, "/api/v1/services", &page).await.status(), 403);
    assert_eq!(ask(Method::GET, "/v0.1/servers?limit=0", &[]).await.status(), 400);
    let entries: Value = ask(Method::GET, "/", &[]).await.json().await.unwrap();
    assert!(entries["entries"].get("GET /v0.1/servers").is_some(), "{entries}");
}

#[tokio::test]
async fn the_namespace_is_a_setting() {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"a": far("1")}));
    let config = world.write("machina.toml", "[registry]\nnamespace = \"com.example\"\n");
    let args = ["--import", &hosts, "--config", crate::world::text(&config)];
    let mut served = Served::start(&world, &args).await;
    served.until("Settled in").await;
    let list = Client::builder().no_proxy().build().unwrap().get(format!("{}/v0.1/servers", served.url)).send().await;
    let list: Value = list.unwrap().json().await.unwrap();
    assert_eq!(list["servers"][0]["server"]["name"], "com.example/a");
    world.write("machina.toml", "[registry]\nnamespace = \"a/b\"\n");
    let ran = world.run(&["config", "check", crate::world::text(&config)]).await;
    ran.ended(2).complains(&["registry.namespace"]);
}

#[tokio::test]
async fn a_store_follows_another_machina() {
    let (theirs, ours) = (World::reaching_loopback(), World::reaching_loopback());
    let served = there(&theirs).await;
    let from = served.url.as_str();
    let sync = async |args: &[&str]| ours.on_store(&[&["registry", "sync", from], args].concat()).await;

    let ran = sync(&["--dry-run"]).await.ended(0);
    ran.says(&["+ local.machina/a", "3 to add, 0 to change, 0 to remove, 0 unchanged", "dry run"]);
    ours.on_store(&["service", "local.machina/a"]).await.ended(3);

    let ran = sync(&[]).await.ended(0);
    ran.says(&["+ local.machina/small", "an instance is disabled until you enable it", "3 added"]);
    let small = ours.on_store(&["service", "local.machina/small", "--json"]).await.ended(0).json();
    assert_eq!(small["instances"][0]["admin_state"], "disabled", "{small}");
    assert_eq!(small["metadata"]["dev.machina/sync"]["source"], from);
    assert_eq!(ours.processes(), [""; 0], "nothing that came from there was started");

    let ran = sync(&["--json"]).await.ended(0).json();
    assert!(ran["since"].is_string(), "{ran}");
    let outcomes: Vec<_> = ran["entries"].as_array().unwrap().iter().map(|entry| entry["outcome"].clone()).collect();
    assert!(outcomes.iter().all(|outcome| outcome == "unchanged"), "{ran}");

    theirs.run(&["remove", "a", "--url", from]).await.ended(0);
    let changed = theirs.hosts("changed.json", json!({"b": far("2")}));
    theirs.run(&["import", &changed, "--url", from]).await.ended(0);
    let ran = sync(&[]).await.ended(0);
    ran.says(&["- local.machina/a", "~ local.machina/b", "127.0.0.1:9/2", "1 changed, 1 removed"]);
    ours.on_store(&["service", "local.machina/a"]).await.ended(3);

    sync(&["--prefix", "copy/"]).await.ended(0).says(&["+ copy/local.machina.b", "2 added"]);
    sync(&["--prune"]).await.ended(0).says(&["0 removed, 2 unchanged"]);
    sync(&["--prefix", "a/b"]).await.ended(2).complains(&["prefix"]);
    ours.on_store(&["registry", "sync", "registry.example"]).await.ended(2).complains(&["url"]);
    ours.on_store(&["registry", "sync", "http://127.0.0.1:9"]).await.ended(4).complains(&["cannot be read"]);
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);
}

#[tokio::test]
async fn a_running_server_takes_addresses_and_refuses_commands() {
    let (theirs, ours) = (World::reaching_loopback(), World::reaching_loopback());
    let served = there(&theirs).await;
    let mut here = Served::start(&ours, &[]).await;
    here.until("store").await;
    let args = ["registry", "sync", &served.url, "--url", &here.url];
    let ran = ours.run(&args).await.ended(2).says(&["+ local.machina/a", "+ local.machina/b", "2 added", "1 refused"]);
    ran.complains(&["`local.machina/small` was not taken", "access.allow_stdio_registration"]);
    ours.run(&["service", "local.machina/b", "--url", &here.url]).await.ended(0);
    ours.run(&["service", "local.machina/small", "--url", &here.url]).await.ended(3);
}

#[tokio::test]
async fn what_another_registry_lists_on_this_machine_is_not_taken_unless_that_is_allowed() {
    let (theirs, ours) = (World::new(), World::new());
    let served = there(&theirs).await;
    let ran = ours.on_store(&["registry", "sync", &served.url]).await.ended(2);
    ran.complains(&["`local.machina/a` was not taken", "instances[0].http.url", "egress.allow"]);
    ours.on_store(&["service", "local.machina/a"]).await.ended(3);
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);
}
