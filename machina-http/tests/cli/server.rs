//! `machina serve`, and the other commands asking it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};

use crate::world::{Served, World, is_narrow, signal_to};

#[tokio::test]
async fn serve_says_where_it_is_and_how_its_services_come_up() {
    let world = World::new();
    let missing = json!({"command": "no-such-launcher", "args": []});
    let servers = json!({
        "small": world.server(&[]), "broken": world.server(&["--broken"]), "missing": missing, "bad": {"command": 7},
    });
    let hosts = world.hosts("hosts.json", servers);
    let mut served = Served::start(&world, &["--import", &hosts]).await;
    assert!(served.url.starts_with("http://127.0.0.1:"), "{}", served.url);
    let said = served.until("Settled in").await;
    for part in [
        &format!("{}/mcp", served.url)[..],
        &format!("claude mcp add --transport http machina {}/mcp", served.url),
        "healthy    small  5 tools",
        "unhealthy  broken",
        "| no licence was found",
        "no-such-launcher",
        "1 of 3 services healthy, with 5 tools in all.",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(served.log().contains("mcpServers.bad.command"), "{}", served.log());
    served.signal("INT").await;
    assert_eq!(served.ended().await, 0);
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test]
async fn every_command_asks_a_running_server() {
    let world = World::reaching_loopback();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    let mut served = Served::start(&world, &["--import", &hosts]).await;
    served.until("Settled in").await;
    let url = served.url.clone();
    let ask = async |args: &[&str]| world.run(&[args, &["--url", &url]].concat()).await;
    ask(&["services"]).await.ended(0).says(&["small", "healthy"]);
    let ran = ask(&["service", "small"]).await.ended(0).says(&["python3", "healthy"]);
    is_narrow(&ran.stdout);
    ask(&["tools"]).await.ended(0).says(&["echo", "Adds two numbers"]);
    ask(&["find", "numbers"]).await.ended(0).says(&["add"]);
    ask(&["call", "small", "add", "a=1", "b=2"]).await.ended(0).says(&["3"]);
    ask(&["call", "small", "fail"]).await.ended(1).says(&["as asked"]);
    ask(&["call", "small", "none"]).await.ended(3).complains(&["no tool named `none`"]);
    let health = ask(&["health", "small", "--json"]).await.ended(0).json();
    assert_eq!((&health["service"], &health["status"]), (&json!("small"), &json!("healthy")), "{health}");
    ask(&["call", "small", "die"]).await.ended(5);
    ask(&["explain", "small/echo"]).await.ended(0).says(&["is not repeated"]);
    ask(&["explain", "none"]).await.ended(3);
    let gateway = ask(&["export", "--client", "vscode", "--gateway"]).await.ended(0).json();
    assert_eq!(gateway["servers"]["machina"]["url"], format!("{url}/mcp"), "{gateway}");
    ask(&["import", "--dry-run", &hosts]).await.ended(0).says(&["= small"]);
    let other = world.hosts("other.json", json!({"far": {"type": "http", "url": "http://127.0.0.1:9/mcp"}}));
    ask(&["import", &other]).await.ended(0).says(&["+ far"]);
    ask(&["service", "far", "--json"]).await.ended(0);
    ask(&["admin", "far", "disabled"]).await.ended(0);
    ask(&["health", "far"]).await.ended(0).says(&["far"]);
    ask(&["remove", "far"]).await.ended(0).says(&["- far"]);
    ask(&["service", "far"]).await.ended(3);
    // What the environment says about proxies does not change whom a command asks.
    let mut command = world.command(&["tools", "--url", &url]);
    let output = command.env("HTTP_PROXY", "http://127.0.0.1:9").env("http_proxy", "http://127.0.0.1:9").output().await;
    assert_eq!(output.unwrap().status.code(), Some(0));
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);
    ask(&["services"]).await.ended(4);
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test]
async fn what_a_server_does_not_take_is_not_counted_and_said_before() {
    let world = World::reaching_loopback();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    let mut served = Served::start(&world, &["--import", &hosts]).await;
    served.until("Settled in").await;
    let url = served.url.clone();
    let ask = async |args: &[&str]| world.run(&[args, &["--url", &url]].concat()).await;
    let far = |key: &str| json!({"type": "http", "url": "http://127.0.0.1:9/mcp", "headers": {"X-Key": key}});
    let servers = json!({
        "small": world.server(&["--more"]), "more": world.server(&[]), "reads": far("${env:KEY}"), "far": far("hunter1"),
    });
    let more = world.hosts("more.json", servers);
    let refused = |document: &Value| {
        let names = document["refused"].as_array().unwrap().iter().map(|refused| refused["service"].clone());
        let mut names: Vec<_> = names.map(|name| name.as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let before = ask(&["import", &more, "--dry-run", "--json"]).await.ended(2).json();
    let ran =
        ask(&["import", &more, "--dry-run"]).await.ended(2).says(&["+ far", "1 to add, 0 to change, 0 unchanged"]);
    ran.says(&["3 refused", "dry run"]).complains(&["`more` will be refused", "serve --import"]);
    ask(&["service", "far"]).await.ended(3);
    let done = ask(&["import", &more, "--json"]).await.ended(2).json();
    assert_eq!(done["differences"], json!([{"change": "added", "name": "far"}]), "{done}");
    assert_eq!(refused(&before), ["more", "reads", "small"], "{before}");
    assert_eq!((refused(&done), &done["differences"]), (refused(&before), &before["differences"]), "{done}");
    let ran = ask(&["import", &more]).await.ended(2).complains(&["`more` was not taken", "allow_stdio_registration"]);
    let ran = ran.says(&["= far", "0 added, 0 changed, 1 unchanged, 3 refused"]);
    ran.says(&["instances[0].http.headers.X-Key: a secret, cannot be compared"]);
    let other = world.hosts("other.json", json!({"far": far("hunter2")}));
    let ran = ask(&["import", &other, "--dry-run"]).await.ended(0).says(&["= far", "cannot be compared"]);
    assert!(!ran.stdout.contains("hunter"), "{ran:?}");
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);
}

#[tokio::test]
async fn a_server_without_services_says_how_it_gets_some() {
    let world = World::new();
    let mut served = Served::start(&world, &[]).await;
    served.until("machina serve --import FILE").await;
    let url = served.url.clone();
    world.run(&["services", "--url", &url]).await.ended(0).says(&["machina serve --import FILE"]);
    let address = url.strip_prefix("http://").unwrap().to_owned();
    // A host that starts a second one on the same store is told of the first.
    let mut command = world.command(&["mcp", "--store", "sqlite:here.db"]);
    let output = command.env("MACHINA_SERVER__LISTEN", &address).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains(&format!("claude mcp add --transport http machina {url}/mcp")), "{stderr}");
    assert!(stderr.contains("--store"), "{stderr}");
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);
}

#[tokio::test]
async fn a_watcher_tells_what_goes_and_outlasts_the_server() {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    let mut served = Served::start(&world, &["--import", &hosts]).await;
    served.until("Settled in").await;
    let url = served.url.clone();
    let mut watcher = world.command(&["health", "--watch", "--url", &url]).spawn().unwrap();
    let mut said = lines(watcher.stdout.take().unwrap());
    let mut complaints = lines(watcher.stderr.take().unwrap());
    assert!(next(&mut said).await.contains("healthy     small"));
    world.run(&["remove", "small", "--url", &url]).await.ended(0);
    assert!(next(&mut said).await.contains("removed     small"));
    world.is_soon_empty().await;
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);
    assert!(next(&mut complaints).await.contains("asking on"));
    // Long enough for it to look again: that it fails again is not said again.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let address = url.strip_prefix("http://").unwrap();
    let again = Served::start_again(&world, address, &["--store", "memory:", "--import", &hosts], |_| {}).await;
    assert_eq!(next(&mut complaints).await, "it answers again");
    assert!(next(&mut said).await.contains("small"));
    signal_to(watcher.id().unwrap(), "INT").await;
    assert_eq!(watcher.wait().await.unwrap().code(), Some(130));
    again.signal("TERM").await;
    assert_eq!(again.ended().await, 0);
    world.run(&["health", "--watch", "--url", &url]).await.ended(4);
}

fn lines<T: AsyncRead + Unpin>(stream: T) -> Lines<BufReader<T>> {
    BufReader::new(stream).lines()
}

async fn next<T: AsyncRead + Unpin>(lines: &mut Lines<BufReader<T>>) -> String {
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
    line.expect("a line comes in time").unwrap().expect("the stream goes on")
}

#[tokio::test]
async fn the_server_on_this_machine_is_asked_and_its_store_is_not_opened_twice() {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    let mut served = Served::start(&world, &["--import", &hosts]).await;
    served.until("Settled in").await;
    let address = served.url.strip_prefix("http://").unwrap().to_owned();
    let mut command = world.command(&["services", "--json"]);
    let output = command.env("MACHINA_SERVER__LISTEN", &address).output().await.unwrap();
    let services: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&services[0]["name"], &services[0]["status"]), (&json!("small"), &json!("healthy")), "{services}");
    world.on_store(&["services"]).await.ended(4).complains(&["--url"]);
    let taken = world.run(&["serve", "--listen", &address, "--store", "memory:"]).await.ended(4);
    taken.complains(&[&address, "a Machina serves there already", "--listen"]);
    let mut command = world.command(&["tools", "--json"]);
    let output = command.env("MACHINA_URL", &served.url).output().await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap().as_array().map(Vec::len), Some(5));
    served.signal("HUP").await;
    assert_eq!(served.ended().await, 0);
    world.on_store(&["services"]).await.ended(0).says(&["small"]);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_kills_the_children() {
    let world = World::new();
    // A server that ends neither with its stdin nor with SIGTERM.
    let stubborn = "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                    subprocess.run([sys.executable, sys.argv[0].replace('stubborn-', '')])\ntime.sleep(600)\n";
    let path = world.write("stubborn-server.py", stubborn);
    let hosts = world.hosts("hosts.json", json!({"small": {"command": "python3", "args": [path]}}));
    let config = world.write("machina.toml", "[stdio]\nstop_after_eof = \"30s\"\nstop_after_term = \"30s\"\n");
    let mut served = Served::start(&world, &["--import", &hosts, "--config", config.to_str().unwrap()]).await;
    served.until("Settled in").await;
    served.signal("INT").await;
    served.until("stopping").await;
    assert_ne!(world.processes(), [""; 0], "the first signal alone does not end it");
    served.signal("INT").await;
    assert_eq!(served.ended().await, 130);
    // It does not wait for those that it killed.
    world.is_soon_empty().await;
}

#[tokio::test]
async fn a_lazy_server_has_settled_without_starting_what_it_knows() {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    world.on_store(&["import", &hosts]).await.ended(0);
    world.on_store(&["health"]).await.ended(0);
    let config = world.write("machina.toml", "[sessions]\nstart = \"lazy\"\n");
    let mut served = Served::start(&world, &["--config", config.to_str().unwrap()]).await;
    let said = served.until("Settled in").await;
    assert!(said.contains("unknown    small  not started; 5 tools known"), "{said}");
    assert_eq!(world.processes(), [""; 0]);
    let url = served.url.clone();
    world.run(&["call", "small", "echo", "text=awake", "--url", &url]).await.ended(0).says(&["awake"]);
    assert_eq!(world.processes().len(), 1);
    served.signal("INT").await;
    assert_eq!(served.ended().await, 0);
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test]
async fn serve_writes_events_for_programs() {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    let config = world.write("machina.toml", "[[services]]\nname = \"empty\"\n");
    let args = ["serve", "--listen", "127.0.0.1:0", "--store", "memory:", "--json", "--import", &hosts];
    let mut child = world.command(&[&args[..], &["--config", config.to_str().unwrap()]].concat()).spawn().unwrap();
    let mut events: Vec<Value> = Vec::new();
    let mut lines = lines(child.stdout.take().unwrap());
    while !events.iter().any(|event| event["event"] == "all_settled") {
        let line = lines.next_line().await.unwrap().expect("it goes on until all have settled");
        events.push(serde_json::from_str(&line).unwrap());
    }
    assert_eq!(events[0]["event"], "listening", "{events:?}");
    assert!(events.iter().any(|event| event["service"] == "small" && event["tools"] == 5), "{events:?}");
    assert!(events.iter().any(|event| event["service"] == "empty"), "{events:?}");
    signal_to(child.id().unwrap(), "TERM").await;
    assert_eq!(next(&mut lines).await, r#"{"event":"stopping"}"#);
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}
