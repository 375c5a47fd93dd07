//! The conformance suites of MCP, scenario by scenario, against the committed
//! list: one that neither passes nor is listed fails the test, and so does one
//! that passes although it is listed as not applicable. So the list stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use machina_tests::{Fixture, Peers, closing_line, workspace_root};
use serde::Deserialize;
use serde_json::Value;

use super::Setup;

/// What each scenario of each suite is expected to do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectations {
    suites: Vec<Suite>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    title: String,
    package: String,
    version: String,
    /// The revision whose scenarios run; without one, the extensions.
    #[serde(default)]
    revision: Option<String>,
    passes: BTreeSet<String>,
    does_not_apply: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    why: String,
    scenarios: BTreeSet<String>,
}

/// What went wrong in each scenario that ran; nothing in one that passed.
type Outcomes = BTreeMap<String, Vec<String>>;

fn expectations() -> Expectations {
    let text = std::fs::read_to_string(workspace_root().join("tests/peers/conformance.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

impl Suite {
    fn excepted(&self) -> BTreeSet<&str> {
        self.does_not_apply.iter().flat_map(|exception| &exception.scenarios).map(String::as_str).collect()
    }

    async fn run(&self, peers: &Peers, url: &str) -> Outcomes {
        assert_eq!(peers.version(&self.package), self.version, "tests/peers/conformance.json is about another version");
        let directory = tempfile::tempdir().unwrap();
        let results = directory.path().to_str().unwrap();
        let mut args = vec!["server", "--url", url, "--suite", "all", "--output-dir", results];
        args.extend(self.revision.iter().flat_map(|revision| ["--spec-version", revision]));
        let ran = peers.conformance(&self.package, &args).await;
        let mut outcomes = outcomes(directory.path());
        assert!(!outcomes.is_empty(), "{}: nothing ran:\n{}{}", self.title, ran.stdout, ran.stderr);
        if self.revision.is_none() {
            outcomes.retain(|scenario, _| is_extension(scenario));
        }
        outcomes
    }

    /// Where reality differs from the list.
    fn wrong(&self, outcomes: &Outcomes) -> Vec<String> {
        let excepted = self.excepted();
        let of_one = |(scenario, problems): (&String, &Vec<String>)| match (
            problems.is_empty(),
            self.passes.contains(scenario),
            excepted.contains(scenario.as_str()),
        ) {
            (true, true, false) | (false, false, true) => None,
            (false, true, false) => Some(format!("{scenario} does not pass: {}", problems.join("; "))),
            (true, false, true) => Some(format!("{scenario} passes, but is listed as not applicable")),
            (_, true, true) => Some(format!("{scenario} is listed twice")),
            (true, false, false) => Some(format!("{scenario} passes, but is not listed")),
            (false, false, false) => Some(format!("{scenario} is not listed, and fails: {}", problems.join("; "))),
        };
        let listed = self.passes.iter().map(String::as_str).chain(excepted.iter().copied());
        let missing = listed.filter(|scenario| !outcomes.contains_key(*scenario));
        let missing = missing.map(|scenario| format!("{scenario} is listed, but did not run"));
        outcomes.iter().filter_map(of_one).chain(missing).collect()
    }
}

fn is_extension(scenario: &str) -> bool {
    scenario.starts_with("tasks-") || scenario.starts_with("sep-2640-")
}

/// Reads what a run left: one directory per scenario, named after it and the time.
fn outcomes(directory: &Path) -> Outcomes {
    const TIME: usize = "-2026-07-28T00-00-00-000Z".len();
    let mut outcomes = Outcomes::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name.strip_prefix("server-").unwrap_or(name);
        let checks: Vec<Value> = serde_json::from_slice(&std::fs::read(path.join("checks.json")).unwrap()).unwrap();
        outcomes.insert(name[..name.len() - TIME].to_owned(), problems(&checks));
    }
    outcomes
}

/// What keeps a scenario from having passed. A warning is a failure here, and so
/// is a check that was skipped, or a scenario in which nothing was checked.
fn problems(checks: &[Value]) -> Vec<String> {
    let status = |check: &Value| check["status"].as_str().unwrap_or_default().to_owned();
    let said = |check: &Value| {
        let why = check["errorMessage"].as_str().unwrap_or("no reason given");
        format!("{} {}: {why}", check["id"].as_str().unwrap_or_default(), status(check))
    };
    let bad = checks.iter().filter(|check| !["SUCCESS", "INFO"].contains(&status(check).as_str()));
    let mut problems: Vec<String> = bad.map(said).collect();
    let of_the_wire = |check: &Value| check["id"].as_str().is_some_and(|id| id.starts_with("wire-schema"));
    if problems.is_empty() && !checks.iter().any(|check| status(check) == "SUCCESS" && !of_the_wire(check)) {
        problems.push("nothing was checked".to_owned());
    }
    problems
}

/// Runs every suite against `url`; panics with all that is not as listed.
async fn check(url: &str, behind: &str) {
    let peers = Peers::installed();
    let mut wrong = Vec::new();
    for suite in expectations().suites {
        let outcomes = suite.run(&peers, url).await;
        let passed = outcomes.values().filter(|problems| problems.is_empty()).count();
        closing_line(&format!(
            "conformance {}, {}, {behind}: {passed} of {} scenarios pass, {} do not apply",
            suite.version,
            suite.title,
            outcomes.len(),
            suite.excepted().len(),
        ));
        wrong.extend(
            suite.wrong(&outcomes).into_iter().map(|what| format!("{} ({}): {what}", suite.title, suite.version)),
        );
    }
    assert!(wrong.is_empty(), "{behind}: {} scenarios are not as listed:\n{}", wrong.len(), wrong.join("\n"));
}

/// Each era towards hosts meets each era towards servers.
#[tokio::test]
async fn the_suites_are_passed_with_a_server_of_2026_07_28_behind() {
    let machina = Setup::new("modern").serve().await;
    check(&format!("{}/mcp", machina.url()), "a server of 2026-07-28 behind Machina").await;
}

#[tokio::test]
async fn the_suites_are_passed_with_a_server_of_2025_11_25_behind() {
    let machina = Setup::new("legacy").serve().await;
    check(&format!("{}/mcp", machina.url()), "a server of 2025-11-25 behind Machina").await;
}

/// What fails through Machina and not here is the fault of Machina.
#[tokio::test]
async fn the_fixture_itself_passes_all_but_the_extensions() {
    let peers = Peers::installed();
    let fixture = Fixture::http(&["--profile", "conformance"]).await;
    for suite in expectations().suites.iter().filter(|suite| suite.revision.is_some()) {
        let outcomes = suite.run(&peers, fixture.url()).await;
        let failed: Vec<_> = outcomes.iter().filter(|(_, problems)| !problems.is_empty()).collect();
        // It does not resume streams.
        assert!(failed.iter().all(|(scenario, _)| *scenario == "server-sse-polling"), "{}: {failed:#?}", suite.title);
    }
}

#[test]
fn a_list_that_is_not_true_is_told_apart() {
    let suite = Suite {
        title: "a suite".to_owned(),
        package: String::new(),
        version: String::new(),
        revision: None,
        passes: ["good", "broken", "gone"].map(str::to_owned).into(),
        does_not_apply: vec![Exception {
            why: "so".to_owned(),
            scenarios: ["excepted", "mended"].map(str::to_owned).into(),
        }],
    };
    let outcome = |scenario: &str, problem: Option<&str>| {
        (scenario.to_owned(), problem.map(str::to_owned).into_iter().collect::<Vec<_>>())
    };
    let outcomes = Outcomes::from([
        outcome("good", None),
        outcome("broken", Some("no answer")),
        outcome("excepted", Some("no answer")),
        outcome("mended", None),
        outcome("new", Some("no answer")),
    ]);
    assert_eq!(
        suite.wrong(&outcomes),
        [
            "broken does not pass: no answer",
            "mended passes, but is listed as not applicable",
            "new is not listed, and fails: no answer",
            "gone is listed, but did not run",
        ]
    );
    let check = |id: &str, status: &str| serde_json::json!({"id": id, "status": status});
    assert!(problems(&[check("a", "SUCCESS"), check("b", "INFO")]).is_empty());
    for bad in ["FAILURE", "WARNING", "SKIPPED"] {
        assert_eq!(problems(&[check("a", "SUCCESS"), check("b", bad)]), [format!("b {bad}: no reason given")]);
    }
    assert_eq!(problems(&[check("wire-schema-valid", "SUCCESS"), check("b", "INFO")]), ["nothing was checked"]);
}

/// The page that tells users, made from the list.
fn page(expectations: &Expectations) -> String {
    let mut page = String::new();
    for suite in &expectations.suites {
        let count = suite.passes.len();
        page += &format!("### {}\n\n`{}` {}: ", suite.title, "@modelcontextprotocol/conformance", suite.version);
        page += &match count {
            0 => "no scenario applies.\n".to_owned(),
            _ => format!(
                "{count} scenarios pass, {} do not apply.\n\nPass: {}.\n",
                suite.excepted().len(),
                suite.passes.iter().map(|scenario| format!("`{scenario}`")).collect::<Vec<_>>().join(", ")
            ),
        };
        if !suite.does_not_apply.is_empty() {
            page += "\n| does not apply | because |\n|---|---|\n";
        }
        for exception in &suite.does_not_apply {
            let scenarios: Vec<_> = exception.scenarios.iter().map(|scenario| format!("`{scenario}`")).collect();
            page += &format!("| {} | {} |\n", scenarios.join(", "), exception.why);
        }
        page += "\n";
    }
    page.trim_end().to_owned() + "\n"
}

#[test]
fn the_page_for_users_says_what_the_list_says() {
    const START: &str = "<!-- made from tests/peers/conformance.json -->\n";
    let path = workspace_root().join("docs/reference/conformance.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, made) = text.split_once(START).expect("the page has the line after which the list follows");
    let wanted = page(&expectations());
    let copy = workspace_root().join("target/conformance.md");
    if made != wanted {
        std::fs::write(&copy, format!("{START}{wanted}")).unwrap();
    }
    assert!(made == wanted, "{} is not current: its last part is in {}", path.display(), copy.display());
}
