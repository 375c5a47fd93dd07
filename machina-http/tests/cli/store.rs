//! Commands directly on a store: nothing runs before, nothing is left after.

use serde_json::json;

use crate::world::{Ran, World, is_narrow};

/// A home whose store knows the small server as `small`.
async fn with_small() -> World {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    world.on_store(&["import", &hosts]).await.ended(0).says(&["+ small", "1 added"]);
    world
}

#[tokio::test]
async fn import_shows_what_changes_and_a_dry_run_changes_nothing() {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    world.on_store(&["import", "--dry-run", &hosts]).await.ended(0).says(&["+ small", "1 to add"]);
    world.on_store(&["services"]).await.ended(0).says(&["There are no services yet", "machina import FILE"]);
    world.on_store(&["import", &hosts]).await.ended(0).says(&["+ small"]);
    world.on_store(&["import", &hosts]).await.ended(0).says(&["= small", "0 added, 0 changed, 1 unchanged"]);
    let revision = async || world.on_store(&["service", "small", "--json"]).await.json()["revision"].clone();
    let before = revision().await;
    world.on_store(&["import", &hosts]).await.ended(0);
    assert_eq!(revision().await, before);
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&["--more"])}));
    let changed = world.on_store(&["import", &hosts, "--json"]).await.ended(0).json();
    assert_eq!(changed["differences"][0]["change"], "changed", "{changed}");
    let service = world.on_store(&["service", "small", "--json"]).await.ended(0).json();
    assert_eq!(service["instances"][0]["stdio"]["args"][1], "--more", "{service}");
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_left_out_and_said() {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[]), "bad": {"command": 7}}));
    let ran = world.on_store(&["import", &hosts]).await.ended(2).says(&["+ small", "1 added"]);
    ran.complains(&["mcpServers.bad.command", "hosts.json"]);
    world.on_store(&["service", "small"]).await.ended(0);
    world.on_store(&["service", "bad"]).await.ended(3).complains(&["no service is named `bad`"]);
}

#[tokio::test]
async fn an_import_does_not_switch_on_what_an_operator_switched_off() {
    let world = World::new();
    let off = json!({"name": "small", "admin_state": "quarantined", "instances": [{"stdio": world.server(&[])}]});
    let record = world.write("record.json", &off.to_string());
    world.on_store(&["import", record.to_str().unwrap()]).await.ended(0);
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&["--more"])}));
    world.on_store(&["import", &hosts]).await.ended(0).says(&["~ small"]);
    let service = world.on_store(&["service", "small", "--json"]).await.ended(0).json();
    assert_eq!(service["admin_state"], "quarantined", "{service}");
}

#[tokio::test]
async fn a_call_starts_the_one_server_and_leaves_none() {
    let world = with_small().await;
    world.on_store(&["call", "small", "echo", r#"{"text": "hello"}"#]).await.ended(0).says(&["hello\n"]);
    world.on_store(&["call", "small", "add", "a=2", "b=40"]).await.ended(0).says(&["42"]);
    let answer = world.on_store(&["call", "small", "echo", "text=7", "--json"]).await.ended(0).json();
    assert_eq!(answer["content"][0]["text"], "7");
    let mut piped = world.command(&["call", "small", "echo", "-", "--store", "sqlite:here.db"]);
    let mut child = piped.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, br#"{"text": "piped"}"#).await.unwrap();
    drop(stdin);
    assert_eq!(child.wait_with_output().await.unwrap().stdout, b"piped\n");
    assert_eq!(answer["_meta"]["dev.machina/call"]["attempts"], 1, "{answer}");
    world.on_store(&["call", "small", "fail"]).await.ended(1).says(&["it failed, as asked"]);
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test]
async fn calls_that_fail_have_their_exit_codes() {
    let world = with_small().await;
    world.on_store(&["health"]).await.ended(0);
    world.on_store(&["call", "small", "ehco"]).await.ended(3).complains(&["no tool named `ehco`"]);
    world.on_store(&["call", "none", "echo"]).await.ended(3).complains(&["no service is named `none`"]);
    world.on_store(&["call", "small", "echo", "[1]"]).await.ended(2).complains(&["arguments"]);
    world.on_store(&["call", "small", "echo", "--timeout", "soon"]).await.ended(2).complains(&["30s"]);
    let lost = world.on_store(&["call", "small", "die", "--json"]).await.ended(5).json();
    assert_eq!(lost["error"]["code"], "lost", "{lost}");
    assert_eq!(lost["error"]["context"]["outcome"], "unknown", "{lost}");
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test]
async fn health_checks_each_service_once_and_keeps_its_tools() {
    let world = with_small().await;
    world.on_store(&["tools"]).await.ended(0).says(&["No tools are known"]);
    world.on_store(&["health"]).await.ended(0).says(&["small", "healthy"]);
    world.on_store(&["tools"]).await.ended(0).says(&["echo", "Says the text again", "die"]);
    let tools = world.on_store(&["tools", "--service", "small", "--json"]).await.ended(0).json();
    assert_eq!(tools.as_array().unwrap().len(), 5, "{tools}");
    world.on_store(&["find", "sum", "of", "two", "numbers"]).await.ended(0).says(&["add"]);
    let found = world.on_store(&["find", "two numbers", "--limit", "1", "--json"]).await.ended(0).json();
    assert_eq!((&found[0]["name"], found.as_array().unwrap().len()), (&json!("add"), 1), "{found}");
    world.on_store(&["find", "numbers", "--limit", "0"]).await.ended(2).complains(&["limit"]);
    world.on_store(&["tools", "--service", "none"]).await.ended(3);
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test]
async fn secrets_are_never_shown() {
    let world = World::new();
    let with_token = |token: &str| {
        let mut server = world.server(&["--api-key", token]);
        server["env"] = json!({"API_TOKEN": token});
        let far = json!({"type": "http", "url": "http://127.0.0.1:9/mcp", "headers": {"Authorization": token}});
        world.hosts("hosts.json", json!({"small": server, "far": far}))
    };
    let mut said = String::new();
    let mut run = async |args: &[&str]| {
        let ran = world.on_store(&[args, &["--log", "trace"]].concat()).await;
        said += &format!("{}{}", ran.stdout, ran.stderr);
        ran
    };
    run(&["import", &with_token("hunter1")]).await.ended(0);
    run(&["import", &with_token("hunter2"), "--dry-run"]).await.ended(0).says(&["another secret"]);
    for args in [
        &["health"][..],
        &["health", "small", "--json"],
        &["service", "small"],
        &["service", "far", "--json"],
        &["call", "small", "echo", "text=x"],
        &["call", "small", "die"],
        &["call", "far", "echo"],
        &["explain", "small", "--json"],
        &["export", "--client", "claude-code"],
        &["export", "--client", "vscode"],
    ] {
        run(args).await;
    }
    assert!(said.contains("********"), "{said}");
    assert!(!said.contains("hunter"), "{said}");
}

#[tokio::test]
async fn watching_shows_what_is_and_what_changes_until_interrupted() {
    let world = with_small().await;
    let mut child = world.command(&["health", "--watch", "--json", "--store", "sqlite:here.db"]).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    loop {
        let line = lines.next_line().await.unwrap().expect("it goes on until it is interrupted");
        let change: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(change["service"], "small", "{change}");
        if change["status"] == "healthy" {
            break;
        }
    }
    crate::world::signal_to(child.id().unwrap(), "INT").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test]
async fn a_broken_server_shows_its_reason_and_its_stderr() {
    let world = World::new();
    let missing = json!({"command": "no-such-launcher", "args": []});
    let servers = json!({"small": world.server(&[]), "broken": world.server(&["--broken"]), "missing": missing});
    let hosts = world.hosts("hosts.json", servers);
    world.on_store(&["import", &hosts]).await.ended(0);
    let ran = world.on_store(&["health"]).await.ended(1);
    let ran = ran.says(&["small", "healthy", "broken", "unhealthy", "no-such-launcher"]);
    is_narrow(&ran.stdout);
    let broken = world.on_store(&["health", "broken"]).await.ended(1);
    broken.says(&["| first line of trouble", "| no licence was found"]);
    let small = world.on_store(&["health", "small", "--json"]).await.ended(0).json();
    assert_eq!((&small["status"], &small["service"]), (&json!("healthy"), &json!("small")), "{small}");
    world.on_store(&["health", "none"]).await.ended(3);
}

#[tokio::test]
async fn explain_and_export_and_service() {
    let world = with_small().await;
    world.on_store(&["explain", "small"]).await.ended(0).says(&["small: enabled", "→", "uncertain"]);
    let explained = world.on_store(&["explain", "small/echo", "--json"]).await.ended(0).json();
    assert_eq!((&explained["tool"], &explained["repeatable"]), (&json!("echo"), &json!(false)), "{explained}");
    world.on_store(&["explain", "none/echo"]).await.ended(3);
    let ran = world.on_store(&["service", "small"]).await.ended(0).says(&["small", "build_type", "external"]);
    is_narrow(&ran.stdout);
    let exported = world.on_store(&["export", "--client", "cursor"]).await.ended(0).json();
    assert_eq!(exported["mcpServers"]["small"]["command"], "python3", "{exported}");
    let gateway = world.on_store(&["export", "--client", "claude-desktop", "--gateway"]).await.ended(0).json();
    let args = gateway["mcpServers"]["machina"]["args"].as_array().unwrap();
    assert_eq!((&args[0], &args[1]), (&json!("mcp"), &json!("--store")), "{gateway}");
    assert_eq!(args[2], format!("sqlite:{}", world.path("here.db").display()), "{gateway}");
    world.on_store(&["export", "--client", "emacs"]).await.ended(2).complains(&["claude-code"]);
}

#[tokio::test]
async fn services_are_filtered() {
    let world = with_small().await;
    let filtered: Ran = world.on_store(&["services", "--filter", "build_type=external"]).await.ended(0);
    filtered.says(&["SERVICE", "small"]);
    world.on_store(&["services", "--filter", "status=healthy"]).await.ended(0).says(&["No service matches."]);
    world.on_store(&["services", "--filter", "colour=blue"]).await.ended(2).complains(&["colour", "build_type"]);
    world.on_store(&["services", "--filter", "blue"]).await.ended(2).complains(&["FIELD=VALUE"]);
    world.on_store(&["services", "--order", "-name", "--json"]).await.ended(0);
}

#[tokio::test]
async fn an_operator_says_what_is_used_and_removes_what_is_not() {
    let world = with_small().await;
    world.on_store(&["admin", "small", "maintenance"]).await.ended(0).says(&["small: maintenance"]);
    world.on_store(&["services"]).await.ended(0).says(&["maintenance"]);
    let said = world.on_store(&["admin", "small", "disabled", "--json"]).await.ended(0).json();
    assert_eq!((&said["service"], &said["admin_state"]), (&json!("small"), &json!("disabled")), "{said}");
    world.on_store(&["call", "small", "echo", "text=x"]).await.ended(4);
    world.on_store(&["admin", "small", "enabled"]).await.ended(0);
    world.on_store(&["call", "small", "echo", "text=x"]).await.ended(0).says(&["x"]);
    let service = world.on_store(&["service", "small", "--json"]).await.json();
    let id = service["instances"][0]["id"].as_str().unwrap();
    world.on_store(&["admin", "small", "draining", "--instance", id]).await.ended(0).says(&[id, "draining"]);
    let service = world.on_store(&["service", "small", "--json"]).await.json();
    assert_eq!(service["instances"][0]["admin_state"], "draining", "{service}");
    world.on_store(&["admin", "small", "off"]).await.ended(2).complains(&["maintenance"]);
    world.on_store(&["admin", "none", "enabled"]).await.ended(3);
    world.on_store(&["remove", "small"]).await.ended(0).says(&["- small"]);
    world.on_store(&["remove", "small"]).await.ended(3).complains(&["no service is named `small`"]);
    world.on_store(&["service", "small"]).await.ended(3);
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let world = with_small().await;
    let mut child = world.command(&["services", "--store", "sqlite:here.db"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
