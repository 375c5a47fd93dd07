//! Both eras over both transports: what is spoken, how it is found out, and
//! that the same service comes out of it.

use std::time::Duration;

use machina_core::{CallOptions, Config, Endpoint, EventKind, HealthState, Instance, Machina, ServiceSpec};
use machina_mcp::client::ClientConfig;
use machina_tests::{Fixture, JournalEvent, JournalFile, Process, call, changed, open, open_with, settled, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

/// One way to run the fixture. An HTTP server lives as long as this.
struct Variant {
    name: String,
    version: &'static str,
    endpoint: Endpoint,
    _server: Option<Fixture>,
}

/// Every era over every transport, with `args`.
async fn variants(args: &[&str]) -> Vec<Variant> {
    let mut all = Vec::new();
    for (era, version) in [("legacy", "2025-11-25"), ("modern", "2026-07-28"), ("both", "2026-07-28")] {
        let args: Vec<_> = ["--era", era].into_iter().chain(args.iter().copied()).collect();
        let server = Fixture::http(&args).await;
        let http = server.endpoint().into();
        all.push(Variant { name: format!("http-{era}"), version, endpoint: http, _server: Some(server) });
        let stdio = Fixture::stdio_spec(&args).into();
        all.push(Variant { name: format!("stdio-{era}"), version, endpoint: stdio, _server: None });
    }
    all
}

/// A registry with a service for each variant, all of them healthy.
async fn registered(variants: &[Variant], config: Config) -> Machina {
    let machina = open(config).await;
    for variant in variants {
        let instance = Instance::new(variant.endpoint.clone());
        machina.register(ServiceSpec::new(&variant.name).unwrap().instance(instance)).await.unwrap();
    }
    settled(&machina, SOON).await;
    machina
}

/// The JSON that a tool answers with as its text.
async fn answer(machina: &Machina, service: &str, tool: &str) -> Value {
    let report = machina.call(&call(service, tool, json!({})), &CallOptions::default()).await.unwrap();
    serde_json::from_str(&report.result.text()).unwrap()
}

/// The one instance of a service.
async fn only(machina: &Machina, service: &str) -> machina_core::InstanceHealth {
    machina.health(service).await.unwrap().instances.remove(0)
}

#[tokio::test]
async fn every_era_is_spoken_over_every_transport() {
    let variants = variants(&["--pages", "4"]).await;
    let machina = registered(&variants, Config::default()).await;
    for Variant { name, version, .. } in &variants {
        let seen = only(&machina, name).await;
        assert_eq!(
            (seen.health.state, seen.protocol_version.as_deref()),
            (HealthState::Healthy, Some(*version)),
            "{name}"
        );
        let who = answer(&machina, name, "whoami").await;
        assert_eq!(
            (&who["protocol_version"], &who["client_info"]["name"]),
            (&json!(version), &json!("machina")),
            "{name}"
        );

        let service = machina.get(name).unwrap();
        let (_, seen) = service.instances().next().unwrap();
        let definitions = seen.definitions.as_ref().unwrap();
        let names: Vec<_> = definitions.tools.iter().map(|tool| tool.name().as_str()).collect();
        assert_eq!((names.len(), names[0], names[12]), (13, "echo", "ask_client"), "{name}: all pages, in order");
        let others = [&definitions.prompts, &definitions.resources, &definitions.resource_templates];
        assert_eq!(others.map(Vec::len), [2, 2, 1], "{name}");
        assert_eq!(definitions.server_info["name"], "fixture", "{name}");

        let structured = machina.call(&call(name, "structured", json!({})), &CallOptions::default()).await.unwrap();
        assert_eq!(structured.result.0["structuredContent"].to_string(), r#"{"zeta":1,"alpha":["a","b"]}"#, "{name}");
        let echo = call(name, "echo", json!({"text": "hi", "region": "eu"}));
        let echoed = machina.call(&echo, &CallOptions::default()).await;
        assert_eq!(echoed.unwrap().result.text(), "hi", "{name}: an argument that is repeated in a header");
    }
    machina.close().await;
}

#[tokio::test]
async fn definitions_are_kept_word_for_word() {
    let variants = variants(&[]).await;
    let machina = registered(&variants, Config::default()).await;
    for Variant { name, .. } in &variants {
        let service = machina.get(name).unwrap();
        let definition = service.tool("add").unwrap().tool.definition().to_string();
        let head = r#"{"x-machina-test":{"zeta":1,"alpha":[null,2.5,"ü"]},"inputSchema":{"required":["a","b"],"properties":{"a":"#;
        assert!(definition.starts_with(head), "{name}: {definition}");
        assert!(definition.ends_with(r#","description":"Adds two numbers.","name":"add"}"#), "{name}: {definition}");
    }
    machina.close().await;
}

#[tokio::test]
async fn a_silent_discovery_falls_back_to_the_older_handshake() {
    let args = ["--era", "legacy", "--hang-on-discover"];
    let server = Fixture::http(&args).await;
    let mut client = ClientConfig::default();
    client.stdio.discover_timeout = Duration::from_millis(300);
    client.http.discover_timeout = Duration::from_millis(300);
    let machina = open_with(Config::default(), client).await;
    for (name, instance) in
        [("stdio", Instance::new(Fixture::stdio_spec(&args))), ("http", Instance::new(server.endpoint()))]
    {
        machina.register(ServiceSpec::new(name).unwrap().instance(instance)).await.unwrap();
        settled(&machina, SOON).await;
        let seen = only(&machina, name).await;
        assert_eq!(
            (seen.health.state, seen.protocol_version.as_deref()),
            (HealthState::Healthy, Some("2025-11-25")),
            "{name}: {seen:?}"
        );
    }
    machina.close().await;
}

#[tokio::test]
async fn a_server_that_dies_of_discovery_is_respawned_and_its_era_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalFile::new(directory.path().join("journal"));
    let starts = || journal.count(JournalEvent::Started).unwrap();
    let args = ["--era", "legacy", "--exit-on-discover", "--journal", journal.path().to_str().unwrap()];
    let machina = open(Config::default()).await;
    let spec = ServiceSpec::new("old").unwrap().instance(Instance::new(Fixture::stdio_spec(&args)));
    machina.register(spec).await.unwrap();
    settled(&machina, SOON).await;
    let seen = only(&machina, "old").await;
    assert_eq!(
        (seen.health.state, seen.protocol_version.as_deref()),
        (HealthState::Healthy, Some("2025-11-25")),
        "{seen:?}"
    );
    assert_eq!(starts(), 2, "once for each era");

    let process = seen.process_id.and_then(Process::of).unwrap();
    process.signal(Signal::KILL);
    wait_until(SOON, "it is back as another process", async || {
        let seen = only(&machina, "old").await;
        let back = seen.process_id.is_some_and(|pid| pid != process.pid) && seen.health.state == HealthState::Healthy;
        if back { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert_eq!(starts(), 3, "the era is remembered: nothing was asked in vain");
    machina.close().await;
}

#[tokio::test]
async fn progress_is_forwarded_in_order() {
    let variants = variants(&[]).await;
    let machina = registered(&variants, Config::default()).await;
    for Variant { name, .. } in &variants {
        let (sender, mut reports) = mpsc::channel(100);
        let sink = move |progress| sender.try_send(progress).unwrap();
        let options = CallOptions { progress: Some(std::sync::Arc::new(sink)), ..CallOptions::default() };
        machina.call(&call(name, "sleep", json!({"ms": 2000})), &options).await.unwrap();
        drop(options);
        let mut seen = Vec::new();
        while let Some(report) = reports.recv().await {
            assert_eq!((report.total, report.message.as_deref()), (Some(2.0), Some("asleep")), "{name}");
            seen.push(report.progress);
        }
        assert!(seen.len() >= 3 && seen.is_sorted(), "{name}: {seen:?}");
    }
    machina.close().await;
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_upstream() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalFile::new(directory.path().join("journal"));
    let variants = variants(&["--journal", journal.path().to_str().unwrap()]).await;
    let machina = registered(&variants, Config::default()).await;
    let long = |name: &str, how: &str| call(name, "sleep", json!({"ms": 60_000, "id": format!("{name} {how}")}));
    for Variant { name, .. } in &variants {
        let cancelled = CancellationToken::new();
        let options = CallOptions { cancelled: cancelled.clone(), ..CallOptions::default() };
        let (by_token, dropped) = (long(name, "token"), long(name, "drop"));
        let runs = async |how: &str| {
            wait_until(SOON, "the tool runs", async || {
                let running = journal.executions("sleep").unwrap().contains_key(&format!("{name} {how}"));
                if running { Ok(()) } else { Err("it does not".into()) }
            })
            .await;
        };
        let call = machina.call(&by_token, &options);
        let cancel = async {
            runs("token").await;
            cancelled.cancel();
        };
        let (answer, ()) = timeout(SOON, async { tokio::join!(call, cancel) }).await.unwrap();
        assert!(answer.is_err(), "{name}");
        let plain = CallOptions::default();
        tokio::select! {
            answer = machina.call(&dropped, &plain) => panic!("{name}: {answer:?}"),
            () = runs("drop") => {}
        }
        let short = CallOptions { timeout: Some(Duration::from_secs(3)), ..CallOptions::default() };
        let late = machina.call(&long(name, "deadline"), &short).await.unwrap_err();
        assert_eq!(late.kind(), machina_core::ErrorKind::Timeout, "{name}: {late:?}");
    }
    wait_until(SOON, "every call is cancelled upstream", async || {
        let entries = journal.read().unwrap();
        let cancelled = entries.into_iter().filter(|entry| entry.event == JournalEvent::Cancelled);
        let mut ids: Vec<_> = cancelled.filter_map(|entry| entry.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() == 3 * variants.len() { Ok(()) } else { Err(format!("only {ids:?} are")) }
    })
    .await;
    machina.close().await;
}

#[tokio::test]
async fn a_change_of_the_tools_is_an_event() {
    let variants = variants(&[]).await;
    let machina = registered(&variants, Config::default()).await;
    for Variant { name, .. } in &variants {
        let event = changed(&machina, name, SOON).await;
        let EventKind::DefinitionsChanged { added, removed, changed, .. } = &event.kind else { panic!("{event:?}") };
        let service = event.service.as_ref().unwrap();
        assert_eq!(
            (service.as_str(), &added[..], removed.len() + changed.len()),
            (name.as_str(), &["extra".to_owned()][..], 0)
        );
        assert!(machina.get(name).unwrap().tool("extra").is_some(), "{name}");
    }
    machina.close().await;
}

#[tokio::test]
async fn what_a_server_asks_is_answered() {
    let variants = variants(&[]).await;
    let machina = registered(&variants, Config::default()).await;
    for Variant { name, version, .. } in &variants {
        let asked = answer(&machina, name, "ask_client").await;
        if *version == "2026-07-28" {
            assert_eq!(asked, json!({"asked": false}), "{name}");
            continue;
        }
        assert_eq!(asked["roots/list"]["result"], json!({"roots": []}), "{name}: {asked}");
        assert_eq!(asked["log"]["error"]["code"], -32601, "{name}: {asked}");
    }
    machina.close().await;
}
