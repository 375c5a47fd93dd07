//! `machina serve`, and the other commands asking it.

use serde_json::{Value, json};

use crate::world::{Served, World, is_narrow};

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
    let world = World::new();
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
    ask(&["call", "small", "die"]).await.ended(5);
    ask(&["health", "small", "--json"]).await;
    ask(&["explain", "small/echo"]).await.ended(0).says(&["is not repeated"]);
    ask(&["explain", "none"]).await.ended(3);
    let gateway = ask(&["export", "--client", "vscode", "--gateway"]).await.ended(0).json();
    assert_eq!(gateway["servers"]["machina"]["url"], format!("{url}/mcp"), "{gateway}");
    ask(&["import", "--dry-run", &hosts]).await.ended(0).says(&["= small"]);
    let other = world.hosts("other.json", json!({"far": {"type": "http", "url": "http://127.0.0.1:9/mcp"}}));
    ask(&["import", &other]).await.ended(0).says(&["+ far"]);
    ask(&["service", "far", "--json"]).await.ended(0);
    let more = world.hosts("more.json", json!({"more": world.server(&[])}));
    ask(&["import", &more]).await.ended(2).complains(&["allow_stdio_registration"]);
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);
    ask(&["services"]).await.ended(4);
    assert_eq!(world.processes(), [""; 0]);
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
    taken.complains(&[&address, "--listen"]);
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
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    while !events.iter().any(|event| event["event"] == "all_settled") {
        let line = lines.next_line().await.unwrap().expect("it goes on until all have settled");
        events.push(serde_json::from_str(&line).unwrap());
    }
    assert_eq!(events[0]["event"], "listening", "{events:?}");
    assert!(events.iter().any(|event| event["service"] == "small" && event["tools"] == 5), "{events:?}");
    assert!(events.iter().any(|event| event["service"] == "empty"), "{events:?}");
    crate::world::signal_to(child.id().unwrap(), "TERM").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}
