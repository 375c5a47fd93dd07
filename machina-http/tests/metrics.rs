//! `/metrics`, scraped from a real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeMap;

use machina_core::Status;
use machina_core::testing::registry_suite::settle;
use serde_json::json;
use support::Server;

/// The value of each series, as it is written.
async fn scraped(server: &Server) -> BTreeMap<String, f64> {
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.text.ends_with("# EOF\n"));
    let lines = answer.text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    let all: Vec<(String, f64)> = series.collect();
    let by_name: BTreeMap<String, f64> = all.iter().cloned().collect();
    assert_eq!(by_name.len(), all.len(), "a series is there twice");
    by_name
}

fn sum(series: &BTreeMap<String, f64>, beginning: &str) -> f64 {
    series.iter().filter(|(name, _)| name.starts_with(beginning)).map(|(_, value)| value).sum()
}

#[tokio::test]
async fn what_is_counted_moves_after_calls() {
    let server = Server::start().await;
    let instance = server.sim.instance("one");
    server.register(json!({"name": "clock", "env": {"TOKEN": "hunter2"}, "instances": [instance]})).await;
    settle(&server.machina, "clock", Status::Healthy).await;
    let before = scraped(&server).await;
    assert_eq!(before["machina_services{status=\"healthy\"}"], 1.0);
    assert_eq!(before["machina_instances{state=\"healthy\"}"], 1.0);
    assert_eq!(before["machina_service_status{service=\"clock\",status=\"healthy\"}"], 1.0);
    assert_eq!(before["machina_tools"], 2.0);
    assert_eq!(before["machina_revision"].to_string(), server.machina.view().revision().to_string());
    assert_eq!(before["machina_journal_entries_dropped_total"], 0.0);
    assert!(sum(&before, "machina_probes_total{service=\"clock\"") >= 1.0, "{before:?}");
    assert_eq!(sum(&before, "machina_tool_calls_total"), 0.0);

    let tool = server.machina.get("clock").unwrap().tools()[0].tool.name().to_string();
    let call = json!({"tool": tool, "arguments": {}});
    for _ in 0..3 {
        assert_eq!(server.post("/api/v1/services/clock/call", call.clone()).await.status, 200);
    }
    server.post("/api/v1/services/clock/call", json!({"tool": "no-such-tool"})).await;
    let after = scraped(&server).await;
    assert_eq!(after[&format!("machina_tool_calls_total{{service=\"clock\",tool=\"{tool}\"}}")], 3.0);
    assert!(after["machina_call_duration_seconds_count{service=\"clock\"}"] >= 3.0);
    let buckets = "machina_call_duration_seconds_bucket{le=\"+Inf\",service=\"clock\"}";
    assert_eq!(after[buckets], after["machina_call_duration_seconds_count{service=\"clock\"}"]);
    assert!(sum(&after, "machina_attempts_total{service=\"clock\"") >= 3.0);
    assert_eq!(after["machina_sessions_open"], 1.0);
    let answer = server.get("/metrics").await;
    assert!(!answer.text.contains("hunter2"), "a secret was shown");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.get(&format!("/api/v1/services/{name}")).await.assert_problem(name, 404, "not_found");
    }
    server.get("/no/such/path").await;
    server.send("DELETE", "/livez", &[], None).await;
    let series = scraped(&server).await;
    let count = |method: &str, route: &str, status: u16| {
        let labels =
            format!("http_request_method=\"{method}\",http_route=\"{route}\",http_response_status_code=\"{status}\"");
        series.get(&format!("http_server_request_duration_seconds_count{{{labels}}}")).copied()
    };
    assert_eq!(count("GET", "/api/v1/services/{service}", 404), Some(3.0), "{series:?}");
    assert_eq!(count("GET", "", 404), Some(1.0));
    assert_eq!(count("DELETE", "/livez", 405), Some(1.0));
    assert!(!series.keys().any(|name| name.contains("/no/such") || name.contains("services/a")), "{series:?}");
    assert_eq!(series["machina_metrics_series_omitted"], 0.0);
}

#[tokio::test]
async fn streams_that_are_open_are_counted() {
    let server = Server::start().await;
    let stream = reqwest::get(format!("{}/api/v1/events", server.url)).await.unwrap();
    assert_eq!(scraped(&server).await["machina_event_streams_open"], 1.0);
    drop(stream);
}

#[tokio::test]
async fn an_unknown_parameter_is_refused() {
    let server = Server::start().await;
    server.get("/metrics?name=x").await.assert_problem("a parameter", 400, "invalid");
}

#[tokio::test]
async fn every_name_is_documented() {
    let server = Server::start().await;
    let documented = include_str!("../../docs/reference/metrics.md");
    let answer = server.get("/metrics").await;
    let names: Vec<&str> = answer.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names.iter().map(|line| line.split(' ').next().unwrap()) {
        assert!(documented.contains(&format!("`{name}")), "{name} is not in docs/reference/metrics.md");
    }
}
