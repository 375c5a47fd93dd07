//! The programs that need no server, run as a person runs them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

fn output_of(program: &str) -> String {
    let ran = Command::new(program).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "{program} ended with {}: {said}", ran.status);
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn the_quickstart_prints_what_it_prints_in_every_language() {
    let expected = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/quickstart.txt")).unwrap();
    assert_eq!(output_of(env!("CARGO_BIN_EXE_quickstart")), expected);
}

#[test]
fn native_tools_are_called() {
    let said = output_of(env!("CARGO_BIN_EXE_native_tools"));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..6],
        [
            "calculator/calculator: {\"value\":8}",
            "calculator/evaluate: {\"value\":98}",
            "strings/change_case: someWords",
            "transform/json_to_csv: name,price | tea,3 | \"milk, fresh\",2",
            "own/wait: waited 2 steps",
            "own/wait: invalid: arguments.steps: it is greater than the maximum of 10",
        ]
    );
    assert_eq!(lines[6], "own/size: {\"is_file\":true}");
    assert_eq!(lines[7], "own/never: timeout: no answer before the deadline");
    assert_eq!(lines[8..], ["left: size, wait"]);
}
