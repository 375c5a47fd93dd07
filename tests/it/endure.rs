//! Runs rows of `endure` the short way: each in a process of its own, whose
//! memory, files and children are nobody else's.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long a short row may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(900);

/// Two at a time would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Runs a row, prints what it prints, and fails if something happened that must
/// never happen.
pub(crate) async fn endure(row: &str) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_endure"));
    command.args([row, "--short", "--no-build"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("endure {row} ran for {PATIENCE:?}")).unwrap();
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{}\n{said}{complaint}", output.status);
    let figure = said.lines().find(|line| line.starts_with(row) && line.contains("target:"));
    assert!(figure.is_some(), "there is no figure of {row}:\n{said}");
}
