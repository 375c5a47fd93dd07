//! The services that come with Machina, as `machina serve --builtin` serves them.

use machina_tests::MachinaProcess;
use serde_json::{Value, json};

use crate::serve::healthy;

async fn call(machina: &MachinaProcess, service: &str, tool: &str, arguments: Value) -> (u16, Value) {
    let body = json!({"tool": tool, "arguments": arguments});
    let answer = machina.post(&format!("/api/v1/services/{service}/call"), &body).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn they_are_off_until_they_are_named() {
    let machina = MachinaProcess::serve(&["--builtin", "calculator,transform"]).await;
    healthy(&machina, "calculator").await;
    healthy(&machina, "transform").await;
    assert_eq!(machina.get("/api/v1/services/strings").await.status, 404);
    let (status, body) = call(&machina, "calculator", "calculator", json!({"operation": "add", "a": 5, "b": 3})).await;
    assert_eq!((status, &body["structuredContent"]), (200, &json!({"value": 8})), "{body}");
    let (status, body) = call(&machina, "transform", "csv_to_json", json!({"csv": "a,b\n1,x\n"})).await;
    assert_eq!((status, &body["structuredContent"]["rows"]), (200, &json!([{"a": "1", "b": "x"}])), "{body}");
    let (status, body) = call(&machina, "calculator", "evaluate", json!({"expression": 5})).await;
    assert_eq!((status, &body["code"]), (422, &json!("invalid")), "{body}");

    // Switched off: declared still, and the truth is said about it.
    let machina = machina.kill_and_restart(&[]).await;
    let is = |body: &Value| (body["status"].clone(), body["health"]["reason"]["code"].clone());
    let elsewhere = (json!("unknown"), json!("elsewhere"));
    machina_tests::wait_until(std::time::Duration::from_secs(30), "it is said to be elsewhere", async || {
        let answer = machina.get("/api/v1/services/calculator").await;
        if is(&answer.body) == elsewhere { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;
    let (status, body) = call(&machina, "calculator", "evaluate", json!({"expression": "1"})).await;
    assert_eq!(
        (status, &body["code"], &body["outcome"]),
        (503, &json!("unavailable"), &json!("not_executed")),
        "{body}"
    );

    // Switched on again, it is the same service.
    let before = machina.get("/api/v1/services/calculator").await.body;
    let machina = machina.kill_and_restart(&["--builtin", "calculator"]).await;
    healthy(&machina, "calculator").await;
    let after = machina.get("/api/v1/services/calculator").await.body;
    assert_eq!((&after["id"], &after["revision"]), (&before["id"], &before["revision"]));
    assert_eq!(after["instances"][0]["id"], before["instances"][0]["id"]);
    let (status, body) = call(&machina, "calculator", "evaluate", json!({"expression": "2 ^ 10"})).await;
    assert_eq!((status, &body["structuredContent"]), (200, &json!({"value": 1024})), "{body}");
}
