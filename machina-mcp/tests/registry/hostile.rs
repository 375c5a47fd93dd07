//! Registries that break off, lie, or mean harm.

use machina_core::{Endpoint, ErrorKind, Machina, Principal, Role, Sensitive};
use machina_mcp::registry::{SyncOptions, SyncOutcome, SyncReport, sync};
use serde_json::{Value, json};

use crate::support::{Script, entry, machina};

const LATER: &str = "2026-01-01T00:00:00Z";

fn remote(path: &str) -> Value {
    json!({"remotes": [{"type": "streamable-http", "url": format!("https://mcp.example/{path}")}]})
}

async fn run(here: &Machina, script: &Script) -> machina_core::Result<SyncReport> {
    let served = script.serve().await;
    sync(here, &SyncOptions { url: served.url.clone(), ..SyncOptions::default() }).await
}

#[tokio::test]
async fn a_listing_that_breaks_off_changes_nothing() {
    let good = || json!([entry("io.x/a", "active", LATER, remote("a"))]);
    let json_type = [("content-type", "application/json")];
    let first = || Script::default().page(good(), Some("next"));
    let cases = [
        (first().answer(500, &[], "no"), ErrorKind::Rejected, "answered 500"),
        (first().answer(200, &json_type, "{\"servers\": ["), ErrorKind::Rejected, "no list of servers"),
        (first().answer(200, &json_type, "[]"), ErrorKind::Rejected, "no list of servers"),
        (first().answer(200, &json_type, "{\"servers\": {}}"), ErrorKind::Rejected, "no list of servers"),
        (
            first().answer(200, &json_type, "{\"servers\": [], \"metadata\": {\"nextCursor\": 7}}"),
            ErrorKind::Rejected,
            "no list",
        ),
        (first().page(good(), Some("next")), ErrorKind::Rejected, "earlier page"),
        (first().page(good(), Some(&"x".repeat(5000))), ErrorKind::Rejected, "too long"),
        (
            first().answer(302, &[("location", "http://127.0.0.1:9/")], ""),
            ErrorKind::Rejected,
            "redirects are not followed",
        ),
        (
            first().answer(200, &json_type, vec![b' '; 33 * 1024 * 1024]),
            ErrorKind::Rejected,
            "more than 33554432 bytes",
        ),
        (first().answer(200, &[("content-length", "1000")], "{\"ser"), ErrorKind::Lost, "cannot be read"),
    ];
    for (script, kind, part) in cases {
        let here = machina().await;
        let error = run(&here, &script).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(part), "{error}");
        assert!(here.view().is_empty());
        assert!(script.asked()[1].contains("cursor=next"), "{:?}", script.asked());
    }
    let here = machina().await;
    let gone = SyncOptions { url: "http://127.0.0.1:9".to_owned(), ..SyncOptions::default() };
    assert_eq!(sync(&here, &gone).await.unwrap_err().kind(), ErrorKind::Unreachable);
    for prefix in ["a/b", "a/b/", &"x".repeat(101)] {
        let options = SyncOptions { prefix: (*prefix).to_owned(), ..gone.clone() };
        assert_eq!(sync(&here, &options).await.unwrap_err().context().problems[0].field, "prefix");
    }
}

#[tokio::test]
async fn a_bad_entry_does_not_stop_the_others() {
    let entries = json!([
        7,
        null,
        {},
        entry("A B/c", "active", LATER, remote("x")),
        entry("io.x/none", "active", LATER, json!({})),
        entry("io.x/bad", "active", LATER, json!({"remotes": [{"type": "sse", "url": "file:///etc/passwd"}]})),
        entry("io.x/odd", "active", LATER, json!({"description": {"a": 1}})),
        entry(
            "io.x/long",
            "active",
            LATER,
            json!({"description": "x".repeat(20_000), "remotes": remote("x")["remotes"]})
        ),
        entry("io.x/esc", "active", LATER, json!({"\u{1b}[31m": 1, "remotes": [{"type": "\u{1b}[31m"}]})),
        entry("io.x/good", "active", "not a time", remote("good")),
        entry("io.x/gone", "deleted", LATER, json!({})),
    ]);
    let here = machina().await;
    let report = run(&here, &Script::default().page(entries, None)).await.unwrap();
    let left_out = report.entries.iter().filter(|entry| matches!(entry.outcome, SyncOutcome::LeftOut { .. })).count();
    assert_eq!(left_out, 7, "{report:#?}");
    assert_eq!(here.view().services().map(|view| view.service().name().to_string()).collect::<Vec<_>>(), ["io.x/good"]);
    assert!(!format!("{report:?}").contains('\u{1b}'));
}

#[tokio::test]
async fn of_many_versions_the_latest_counts() {
    let mut old = entry("io.x/a", "active", LATER, remote("old"));
    let latest = old["_meta"].as_object_mut().unwrap().values_mut().next().unwrap();
    latest["isLatest"] = json!(false);
    let mut withdrawn = old.clone();
    withdrawn["_meta"].as_object_mut().unwrap().values_mut().next().unwrap()["status"] = json!("deleted");
    let new = entry("io.x/a", "active", LATER, remote("new"));
    let removed = entry("io.x/a", "deleted", LATER, json!({}));
    let here = machina().await;
    run(&here, &Script::default().page(json!([new, old, removed, withdrawn]), None)).await.unwrap();
    assert_eq!(here.get("io.x/a").unwrap().service().spec.instances[0].endpoint.location(), "https://mcp.example/new");
}

#[tokio::test]
async fn a_time_to_come_does_not_hide_what_changes_next() {
    let here = machina().await;
    let script = Script::default()
        .page(json!([entry("io.x/a", "active", "9999-01-01T00:00:00Z", remote("1"))]), None)
        .page(json!([]), None);
    let served = script.serve().await;
    let options = SyncOptions { url: served.url.clone(), ..SyncOptions::default() };
    sync(&here, &options).await.unwrap();
    let report = sync(&here, &options).await.unwrap();
    assert!(report.since.unwrap() <= machina_core::now());
    assert!(script.asked()[1].contains("updated_since=20"), "{:?}", script.asked());
    assert!(script.asked().iter().all(|query| query.contains("version=latest") && query.contains("limit=100")));
}

#[tokio::test]
async fn a_secret_in_the_place_of_theirs_stays_while_they_change_the_rest() {
    let here = machina().await;
    let remotes = |path: &str, key: &str| {
        let headers = json!([{"name": "X-Key", "value": key}]);
        json!({"description": path, "remotes": [
            {"type": "streamable-http", "url": "https://mcp.example/1", "headers": headers},
            {"type": "streamable-http", "url": format!("https://mcp.example/{path}")}]})
    };
    let page = |path: &str, key: &str| json!([entry("io.x/a", "active", LATER, remotes(path, key))]);
    let script =
        Script::default().page(page("2", "theirs"), None).page(page("3", "theirs"), None).page(page("3", "new"), None);
    let served = script.serve().await;
    let options = SyncOptions { url: served.url.clone(), ..SyncOptions::default() };
    sync(&here, &options).await.unwrap();
    let mut spec = here.get("io.x/a").unwrap().service().spec.clone();
    let Endpoint::Http(http) = &mut spec.instances[0].endpoint else { panic!("is no address") };
    http.headers.insert("X-Key".to_owned(), Sensitive::secret("mine"));
    here.update("io.x/a", spec, None).await.unwrap();
    for (wanted, changed) in [("mine", "https://mcp.example/3"), ("new", "X-Key")] {
        let report = sync(&here, &options).await.unwrap();
        let SyncOutcome::Changed { fields } = &report.entries[0].outcome else { panic!("{report:?}") };
        let shown = format!("{report:?}");
        assert!(fields.iter().any(|field| field.contains(changed)) || wanted == "new", "{fields:?}");
        assert!(!shown.contains("mine") && !shown.contains("theirs") && !shown.contains("new\""), "{shown}");
        let spec = here.get("io.x/a").unwrap().service().spec.clone();
        assert_eq!(spec.secrets().into_values().collect::<Vec<_>>(), [wanted]);
        assert_eq!(spec.instances[1].endpoint.location(), "https://mcp.example/3");
    }
}

#[tokio::test]
async fn what_this_registry_does_not_take_is_refused_alone() {
    let here = machina().await;
    let package = json!({"packages": [{"registryType": "npm", "identifier": "a", "transport": {"type": "stdio"}}]});
    let names: Vec<_> = (0..20).map(|number| format!("io.x/s{number:02}")).collect();
    let entries: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let rest = if index % 7 == 3 { package.clone() } else { remote(name) };
            entry(name, "active", LATER, rest)
        })
        .collect();
    let script = Script::default().page(json!(entries), None);
    let served = script.serve().await;
    // As the REST API has it: from outside, no command is taken.
    let outside = here.scoped(Principal::new("rest", Role::Admin).remote());
    let report = sync(&outside, &SyncOptions { url: served.url.clone(), ..SyncOptions::default() }).await.unwrap();
    let refused: Vec<_> = report
        .entries
        .iter()
        .filter(|entry| matches!(entry.outcome, SyncOutcome::Refused { .. }))
        .map(|e| &*e.service)
        .collect();
    assert_eq!(refused, ["io.x/s03", "io.x/s10", "io.x/s17"]);
    assert_eq!(here.view().len(), 17);
    // An error that is about no service ends it.
    let reader = here.scoped(Principal::new("reader", Role::Viewer));
    let script = Script::default().page(json!([entry("io.x/new", "active", LATER, remote("n"))]), None);
    let served = script.serve().await;
    let error = sync(&reader, &SyncOptions { url: served.url.clone(), ..SyncOptions::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
}
