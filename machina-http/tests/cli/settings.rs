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
    world.run(&["services", "--store", "postgres://u:hunter2@h/x"]).await.ended(2).complains(&["`sqlite:PATH`"]);
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
