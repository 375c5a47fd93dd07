//! Flags and configuration, right and wrong.

use serde_json::json;

use crate::world::{World, text};

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    let world = World::new();
    for args in [&["--colour"][..], &["serv"], &["call", "small"], &["serve", "--url", "http://127.0.0.1:1"], &[]] {
        world.run(args).await.ended(2);
    }
    world.run(&["services", "--url", "http://127.0.0.1:1", "--store", "memory:"]).await.ended(2);
    world.run(&["services", "--store", "mongodb://u:hunter2@h/x"]).await.ended(2).complains(&["`sqlite:PATH`"]);
    world.run(&["services", "--store", "memory:", "--log", "a=b=c"]).await.ended(2).complains(&["--log"]);
    world.run(&["serve", "--import", "none.json", "--store", "memory:"]).await.ended(2).complains(&["none.json"]);
    world.run(&["--version"]).await.ended(0).says(&["machina 0."]);
    world.run(&["--help"]).await.ended(0).says(&["serve", "explain"]);
}

#[tokio::test]
async fn only_loopback_is_bound() {
    let world = World::new();
    let refused = world.run(&["serve", "--listen", "0.0.0.0:0", "--store", "sqlite:here.db"]).await.ended(2);
    refused.complains(&["127.0.0.1", "authentication"]);
    assert!(!world.path("here.db").exists(), "nothing was opened");
    world
        .run(&["serve", "--listen", "here", "--store", "memory:"])
        .await
        .ended(2)
        .complains(&["server.listen", "--listen"]);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_every_place() {
    let world = World::new();
    let path = world.write("machina.toml", "[health]\nintervall = \"1s\"\n\n[limits]\nservices_max = \"many\"\n");
    let args = ["config", "check", "--config", text(&path)];
    let ran = world.run(&args).await.ended(2);
    ran.complains(&["health.intervall", "machina.toml:2", "did you mean", "limits.services_max", "machina.toml:5"]);
    world.run(&["serve", "--config", text(&path), "--store", "memory:"]).await.ended(2);
    let problems = world.run(&[&args[..], &["--json"]].concat()).await.ended(2).json();
    assert_eq!(problems["error"]["context"]["problems"].as_array().unwrap().len(), 2, "{problems}");
    let fine = world.write("machina.toml", "[health]\ninterval = \"1s\"\n");
    world.run(&["config", "check", "--config", text(&fine)]).await.ended(0).says(&["valid"]);
}

#[tokio::test]
async fn check_finds_everything_that_serve_would_refuse() {
    let world = World::new();
    let wrong = "import = [\"none.json\"]\n[server]\nlisten = \"0.0.0.0:8000\"\n[helth]\ninterval = \"1s\"\n\
                 [store]\nurl = \"mongodb://u:hunter2@h/x\"\n[mcp]\nkeep_alive = \"0s\"\nrequests_max = 0\n\
                 [stdio]\nstarts_max = 0\n[http]\nconnect_timeout = \"0s\"\n[limits]\ninstances_max = 65\n";
    let path = world.write("wrong.toml", wrong);
    let ran = world.run(&["config", "check", text(&path)]).await.ended(2);
    assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
    let ran = ran.complains(&[
        "8 problems",
        "helth: is no setting",
        "server.listen: cannot listen on 0.0.0.0:8000",
        "wrong.toml:3",
        "store.url: must be",
        "mcp.keep_alive",
        "mcp.requests_max",
        "stdio.starts_max",
        "http.connect_timeout",
        "limits.instances_max",
    ]);
    assert!(ran.complains(&["wrong.toml:16"]).stdout.is_empty());
    world.run(&["serve", "--config", text(&path)]).await.ended(2);
    let path = world.write("machina.toml", "import = [\"none.json\", \"empty.json\"]\n");
    world.write("empty.json", "");
    world.run(&["config", "check", text(&path)]).await.ended(2).complains(&["2 problems", "none.json", "empty.json"]);
    world.write("none.json", &json!({"mcpServers": {"bad": {"command": 7}}}).to_string());
    world.write("empty.json", &json!({"mcpServers": {"good": world.server(&[])}}).to_string());
    let ran = world.run(&["config", "check", text(&path)]).await.ended(2).complains(&["mcpServers.bad.command"]);
    ran.says(&["would be left out"]);
    let left_out = world.run(&["config", "check", text(&path), "--json"]).await.ended(2).json();
    assert_eq!(left_out["left_out"].as_array().map(Vec::len), Some(1), "{left_out}");
    world.write("none.json", &json!({"mcpServers": {}}).to_string());
    world.run(&["config", "check", text(&path)]).await.ended(0).says(&["valid."]);
    world.run(&["config", "check", text(&path), "--config", text(&path)]).await.ended(2);
}

#[tokio::test]
async fn an_empty_variable_names_no_file_and_localhost_is_an_address() {
    let world = World::new();
    let mut command = world.command(&["config", "print", "--json"]);
    let output =
        command.env("MACHINA_CONFIG", "").env("MACHINA_SERVER__LISTEN", "localhost:8001").output().await.unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["server.listen"]["value"], "127.0.0.1:8001", "{printed}");
    let path = world.write("machina.toml", "[server]\nlisten = \"127.0.0.1:8002\"\n");
    let output = world.command(&["config", "print"]).env("MACHINA_CONFIG", path).output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("127.0.0.1:8002"), "{output:?}");
    for wrong in ["here:1", "localhost", "localhost:x", "8000"] {
        let ran = world.run(&["serve", "--listen", wrong, "--store", "memory:"]).await.ended(2);
        ran.complains(&["server.listen: must be ADDRESS:PORT", "localhost:8000", "(--listen)"]);
    }
}

#[tokio::test]
async fn nothing_is_said_twice() {
    let world = World::new();
    let ran = world.run(&["export", "--client", "foo", "--store", "memory:"]).await.ended(2);
    assert!(ran.stderr.contains("'--client <HOST>': must be one of claude-code, "), "{ran:?}");
    let ran = world.run(&["import", "-", "--store", "memory:"]).await.ended(2);
    assert_eq!(ran.stderr, "error: import: stdin: is empty\n");
    world.run(&["services", "--store", "memory:", "--filter", "name=x"]).await.ended(0).says(&["No service matches."]);
}

#[tokio::test]
async fn print_says_where_each_value_comes_from() {
    let world = World::new();
    let service =
        "[[services]]\nname = \"a\"\nenv = { TOKEN = \"hunter2\" }\ninstances = [{ stdio = { command = \"x\" } }]\n";
    let path = world.write("machina.toml", &format!("[health]\ninterval = \"10s\"\n{service}"));
    let mut command = world.command(&["config", "print", "--config", text(&path)]);
    let output = command.env("MACHINA_ROUTING__TIMEOUT", "5s").output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("interval = \"10s\"  # ") && printed.contains("machina.toml:2"), "{printed}");
    assert!(printed.contains("timeout = \"5s\"  # MACHINA_ROUTING__TIMEOUT"), "{printed}");
    assert!(printed.contains("fast_interval = \"3s\"  # default"), "{printed}");
    assert!(printed.contains("********") && !printed.contains("hunter2"), "{printed}");
    // What is printed is itself a configuration, except for what is masked.
    let again = world.write("again.toml", &printed.replace("********", "x"));
    world.run(&["config", "check", "--config", text(&again)]).await.ended(0);
}

#[tokio::test]
async fn the_schema_and_the_examples_are_valid() {
    let world = World::new();
    let schema = world.run(&["config", "schema"]).await.ended(0).json();
    assert_eq!(schema["properties"]["sessions"]["properties"]["start"]["enum"], json!(["eager", "lazy"]));
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    world.run(&["config", "check", "--config", &format!("{examples}/machina.toml")]).await.ended(0);
    let hosts = format!("{examples}/mcp.json");
    world.on_store(&["import", "--dry-run", &hosts]).await.ended(0).says(&["6 to add"]);
}
