//! Carries out `tests/scenarios/*.json`: in this process, and over HTTP. The
//! runners of the other languages do the same from the same files.

mod pattern;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use machina_core::{Config, Error, Result};
use machina_http::Client;
use machina_tests::{MachinaProcess, fixture_binary, open, workspace_root};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::pattern::fits;
use self::steps::{Method, Stage};

/// How long something may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// Who there is to carry out scenarios.
const RUNNERS: [&str; 4] = ["rust", "http", "python", "node"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    about: String,
    only: Option<Vec<String>>,
    steps: Vec<Step>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Step {
    r#do: String,
    #[serde(default)]
    with: Map<String, Value>,
    expect: Option<Value>,
    fails: Option<Value>,
    #[serde(default)]
    until: bool,
    #[serde(default)]
    save: Map<String, Value>,
    background: Option<String>,
    only: Option<Vec<String>>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

/// Every scenario with its name, in order.
fn scenarios() -> Vec<(String, Scenario)> {
    let directory = workspace_root().join("tests/scenarios");
    let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let scenario = serde_json::from_str(&std::fs::read_to_string(&path).unwrap());
        let scenario: Scenario = scenario.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!scenario.about.is_empty() && !scenario.steps.is_empty(), "{name} says nothing");
        (name, scenario)
    };
    files.into_iter().map(read).collect()
}

fn is_for(only: Option<&Vec<String>>, runner: &str) -> bool {
    let unknown = only.into_iter().flatten().find(|name| !RUNNERS.contains(&name.as_str()));
    assert_eq!(unknown, None, "there is no such runner");
    only.is_none_or(|only| only.iter().any(|name| name == runner))
}

/// `value` with what was kept, and with the fixture's path.
fn filled_in(value: &Value, saved: &Map<String, Value>) -> Value {
    match value {
        Value::Object(fields) => match fields.get("$saved").and_then(Value::as_str) {
            Some(name) => saved.get(name).unwrap_or_else(|| panic!("nothing is kept as `{name}`")).clone(),
            None => fields.iter().map(|(name, value)| (name.clone(), filled_in(value, saved))).collect(),
        },
        Value::Array(values) => values.iter().map(|value| filled_in(value, saved)).collect(),
        Value::String(text) => text.replace("${fixture}", &fixture_binary().to_string_lossy()).into(),
        other => other.clone(),
    }
}

/// What came of a step, as a pattern sees it.
fn seen(outcome: &Result<Value>) -> Value {
    let told = |error: &Error| json!({"kind": error.kind(), "message": error.message(), "context": error.context()});
    outcome.as_ref().map_or_else(told, Clone::clone)
}

/// # Errors
/// What the outcome should have been.
fn judged(step: &Step, outcome: &Result<Value>, saved: &Map<String, Value>) -> Result<(), String> {
    let pattern = step.fails.as_ref().or(step.expect.as_ref()).map(|pattern| filled_in(pattern, saved));
    match (&step.fails, outcome) {
        (None, Err(error)) => Err(format!("it failed: {error:?}")),
        (Some(_), Ok(answer)) => Err(format!("it should have failed, and came to {answer}")),
        _ => pattern.map_or(Ok(()), |pattern| fits(&pattern, &seen(outcome))),
    }
}

async fn carry_out(stage: &mut Stage, step: &Step, saved: &mut Map<String, Value>) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let with = filled_in(&Value::Object(step.with.clone()), saved);
        let method: Method = serde_json::from_value(json!({ step.r#do.as_str(): with })).map_err(|e| e.to_string())?;
        if let Some(name) = &step.background {
            stage.start(name.clone(), method);
            return Ok(());
        }
        let outcome = stage.carry_out(method).await;
        let judgement = judged(step, &outcome, saved);
        if judgement.is_err() && step.until && Instant::now() < until {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        for (name, place) in &step.save {
            let found = outcome.as_ref().ok().and_then(|answer| answer.pointer(place.as_str()?));
            saved.insert(name.clone(), found.ok_or_else(|| format!("there is nothing at {place} to keep"))?.clone());
        }
        return judgement;
    }
}

/// Carries out a scenario; panics with the step that did not come to what it should.
async fn play(runner: &str, name: &str, scenario: &Scenario, stage: &mut Stage) {
    let mut saved = Map::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        if !is_for(step.only.as_ref(), runner) {
            println!("{runner}: {name}: step {index} ({}) is not for this runner", step.r#do);
            continue;
        }
        if let Err(wrong) = carry_out(stage, step, &mut saved).await {
            panic!("{runner}: {name}: step {index}: {} {}: {wrong}", step.r#do, Value::Object(step.with.clone()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_this_process() {
    for (name, scenario) in scenarios() {
        if is_for(scenario.only.as_ref(), "rust") {
            let machina = open(Config::default()).await;
            play("rust", &name, &scenario, &mut Stage::new(Arc::new(machina.clone()), Some(machina.clone()))).await;
            machina.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("machina.toml");
    std::fs::write(&config, "[access]\nallow_stdio_registration = true\n[egress]\nallow = [\"127.0.0.0/8\"]\n")
        .unwrap();
    for (name, scenario) in scenarios() {
        if is_for(scenario.only.as_ref(), "http") {
            let server = MachinaProcess::serve(&["--config", config.to_str().unwrap()]).await;
            let client = Client::new(server.url()).unwrap();
            play("http", &name, &scenario, &mut Stage::new(Arc::new(client), None)).await;
        }
    }
}

async fn play_alone(steps: Value) {
    let scenario: Scenario = serde_json::from_value(json!({"about": "A test.", "steps": steps})).unwrap();
    let machina = machina_core::Machina::builder().open().await.unwrap();
    play("rust", "alone", &scenario, &mut Stage::new(Arc::new(machina.clone()), Some(machina))).await;
}

#[tokio::test]
#[should_panic(expected = "rust: alone: step 1: get {\"name\":\"a\"}: /title: \"A\" does not fit \"B\"")]
async fn a_step_that_comes_to_something_else_is_named() {
    let made = json!({"do": "register", "with": {"service": {"name": "a", "title": "A"}}});
    play_alone(json!([made, {"do": "get", "with": {"name": "a"}, "expect": {"title": "B"}}])).await;
}

#[tokio::test]
#[should_panic(expected = "it should have failed")]
async fn a_step_that_should_fail_and_does_not_is_named() {
    play_alone(json!([{"do": "find", "fails": {"kind": "invalid"}}])).await;
}

#[tokio::test]
#[should_panic(expected = "unknown variant `gett`")]
async fn a_method_that_there_is_not_is_no_step() {
    play_alone(json!([{"do": "gett"}])).await;
}
