//! What a child process was told in confidence reaches no reader: no log, no error, no answer, no tail of stderr.

use std::fs;
use std::time::Duration;

use machina_tests::{MachinaProcess, fixture_binary, wait_until};
use serde_json::{Map, Value, json};

use crate::serve::healthy;

const SOON: Duration = Duration::from_secs(30);
const CANARY: &str = "canary-5b1d9e7f0c";

/// Servers that say their secrets in every way they have, and one that may not have its secret.
fn servers() -> Map<String, Value> {
    let shell =
        |script: &str| json!({"command": "sh", "args": ["-c", script, fixture_binary()], "env": {"TOKEN": CANARY}});
    let mut servers = Map::new();
    // On stderr, in a line on stdout that is no message, cut in two, and long.
    let says = r#"echo "the token is $TOKEN" >&2; echo "out: $TOKEN"; printf '%s' "${TOKEN%??????}" >&2; sleep 0.1;
                  printf '%s\n' "${TOKEN#???????????}" >&2; exec "$0" stdio"#;
    servers.insert("says".into(), shell(says));
    servers.insert("dies".into(), shell(r#"echo "cannot log in with $TOKEN" >&2; exit 3"#));
    servers.insert(
        "breaks".into(),
        shell(r#"echo "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-1,\"message\":\"$TOKEN\"}}"; sleep 60"#),
    );
    let mut argument = shell(r#"echo "called with $2" >&2; exit 4"#);
    argument["args"].as_array_mut().unwrap().extend([json!("--api-key"), json!(CANARY)]);
    servers.insert("argument".into(), argument);
    servers.insert("missing".into(), json!({"command": "no-such-command", "env": {"TOKEN": CANARY}}));
    servers.insert("refused".into(), json!({"command": "true", "env": {"LD_PRELOAD": CANARY}}));
    servers
}

#[tokio::test]
async fn what_a_child_was_told_in_confidence_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let import = directory.path().join("mcp.json");
    fs::write(&import, json!({"mcpServers": servers()}).to_string()).unwrap();
    let machina = MachinaProcess::serve(&["--log", "trace", "--import", import.to_str().unwrap()]).await;
    healthy(&machina, "says").await;
    for name in ["dies", "argument", "missing", "refused"] {
        wait_until(SOON, &format!("{name} is not healthy"), async || {
            let health = machina.get(&format!("/api/v1/services/{name}")).await.body["health"]["state"].take();
            if health == "unhealthy" || health == "crash_loop" { Ok(()) } else { Err(health.to_string()) }
        })
        .await;
    }
    let mut said = String::new();
    for name in servers().keys() {
        for part in ["", "/health", "/health?slots=3", "/history", "/explain", "/instances", "/tools"] {
            let answer = machina.get(&format!("/api/v1/services/{name}{part}")).await;
            said.push_str(&format!("{name}{part}: {} {}\n", answer.status, answer.body));
        }
        for tool in ["echo", "protocol_error"] {
            let call = json!({"tool": tool, "arguments": {"text": "hello", "code": -5}});
            let answer = machina.post(&format!("/api/v1/services/{name}/call"), &call).await;
            said.push_str(&format!("{name} {tool}: {} {}\n", answer.status, answer.body));
        }
    }
    let shown = said.matches("********").count();
    said.push_str(&machina.output());
    for line in said.lines() {
        assert!(!line.contains(CANARY) && !line.contains("5b1d9e7f0c"), "{line}");
    }
    // It was there to be seen: in the tails of stderr, in an error, and as an argument.
    assert!(said.contains("the token is ********") && said.contains("cannot log in with ********"), "{said}");
    assert!(said.contains("out: ********") && said.contains("called with ********"), "{said}");
    assert!(said.contains("LD_PRELOAD changes what code a child runs"), "{said}");
    assert!(machina.output().contains("TRACE"), "everything was logged");
    println!("{shown} secrets masked in {} bytes of answers and logs", said.len());
}
