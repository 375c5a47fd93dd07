//! Those real servers that are light enough to run every time. They run under a
//! process of their own, whose memory and children can be told apart.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use machina_tests::closing_line;
use machina_tests::fleet::{FleetReport, installed};
use tokio::process::Command;
use tokio::time::timeout;

/// How many servers `fleet.json` marks as light.
const LIGHT: usize = 15;

#[tokio::test]
async fn the_light_servers_are_healthy_complete_and_answer() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-report"));
    command.args(["--json", "--patience", "180"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(300), command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: FleetReport = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let count = report.servers.len();
    assert!(count >= LIGHT, "only {count} are installed: python3 tests/fleet/install.py --ci");
    let bad: Vec<_> = report.servers.iter().filter(|server| !server.is_good()).collect();
    assert!(bad.is_empty(), "{} of {count} are not as they should be: {bad:#?}", bad.len());
    assert!(report.settled_after.is_some(), "not all settled in time");
    assert!(report.children >= count, "each is a process: {}", report.children);
    assert_eq!(report.children_left, 0);
    let expected: usize = report.servers.iter().map(|server| server.expected_tools).sum();
    assert_eq!(report.flat.len(), 3);
    for flat in &report.flat {
        assert!(flat.wrong.is_empty(), "{:?}: {:#?}", flat.prefix, flat.wrong);
        assert_eq!((flat.tools, flat.distinct, flat.resolved), (expected, expected, expected), "{:?}", flat.prefix);
        assert!(flat.answered > 0 && flat.longest <= 64, "{flat:?}");
    }
    assert!(output.status.success(), "{}\n{said}", output.status);
    closing_line(&format!(
        "fleet: {count} servers healthy after {:.1} s, {} processes, 0 left after {:.1} s, RSS {} MB; \
         flat mode: {expected} tools, all names distinct and resolved, with every prefix",
        report.settled_after.unwrap_or_default(),
        report.children,
        report.closed_after,
        report.resident_after / 1_000_000,
    ));
}

#[test]
fn a_missing_fleet_says_how_to_install_it() {
    let error = installed(Path::new("no/such/list.json")).unwrap_err();
    assert!(error.contains("python3 tests/fleet/install.py"), "{error}");
}
