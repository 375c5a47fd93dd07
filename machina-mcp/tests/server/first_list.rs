//! The first list of tools on a pipe, while services are still starting.

use std::time::Duration;

use machina_core::{Endpoint, Instance, ServiceSpec, Tasks};
use machina_mcp::server::ToolPrefix;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::host::Bare;
use crate::library::{Asking, Library, Shelf, flat, served, tool};

/// What comes at once, however busy the machine is.
const AT_ONCE: Duration = Duration::from_secs(2);

fn shelf() -> Shelf {
    Shelf { tools: vec![tool("read")], ..Shelf::default() }
}

#[tokio::test]
async fn it_waits_for_services_that_are_starting_and_later_ones_do_not() {
    let (library, tasks) = (Library::closed(&[("disk", shelf()), ("web", shelf())]).await, Tasks::new());
    let mut host = Asking::new(&library, &tasks, flat(ToolPrefix::Always));
    let starting = async {
        sleep(Duration::from_millis(200)).await;
        library.unlock(true);
    };
    let (names, ()) = tokio::join!(host.keys("tools/list", "tools", "name"), starting);
    assert_eq!(names, ["disk__read", "web__read"]);

    library.unlock(false);
    let late = ServiceSpec::parse(r#"{"name": "late"}"#).unwrap();
    library.machina.register(late.instance(Instance::new(Endpoint::InProcess))).await.unwrap();
    let asked = Instant::now();
    assert_eq!(host.keys("tools/list", "tools", "name").await, names);
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    tasks.cancel();
}

#[tokio::test]
async fn it_waits_three_seconds_at_most_and_holds_up_nothing_else() {
    let (library, tasks) = (Library::closed(&[("disk", shelf())]).await, Tasks::new());
    let mut host = Bare::new(served(&library, &tasks, flat(ToolPrefix::Always)));
    host.initialize().await;
    let asked = Instant::now();
    host.send(&json!({"jsonrpc": "2.0", "id": "first", "method": "tools/list"}).to_string()).await;
    host.request(json!("ping"), "ping", json!({})).await;
    let again = host.request(json!("again"), "tools/list", json!({})).await;
    assert_eq!(again["result"]["tools"], json!([]), "a later list");
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    let first: Value = host.next().await.unwrap();
    assert_eq!((&first["id"], &first["result"]["tools"]), (&json!("first"), &json!([])));
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_secs(3) && waited < Duration::from_secs(3) + AT_ONCE, "{waited:?}");
    tasks.cancel();
}

#[tokio::test]
async fn it_does_not_wait_for_what_is_known_or_taken_out_or_in_meta_mode() {
    let (library, tasks) = (Library::open(&[("disk", shelf())]).await, Tasks::new());
    library.unlock(false);
    let off = ServiceSpec::parse(r#"{"name": "off", "admin_state": "disabled"}"#).unwrap();
    library.machina.register(off.instance(Instance::new(Endpoint::InProcess))).await.unwrap();
    let asked = Instant::now();
    let mut host = Asking::new(&library, &tasks, flat(ToolPrefix::None));
    assert_eq!(host.keys("tools/list", "tools", "name").await, ["read"]);
    let starting = Library::closed(&[("disk", shelf())]).await;
    let mut host = Asking::new(&starting, &tasks, machina_mcp::server::Exposure::default());
    assert!(host.keys("tools/list", "tools", "name").await.contains(&"find_tool".to_owned()));
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    tasks.cancel();
}
