//! Where the programs under test are. They lie beside the running test in
//! cargo's target directory.
//!
//! Cargo builds `machina-fixture` and `machina-farm` along with the tests of this
//! package, but not the binary of another one. So `machina` is built by one
//! `cargo build` per test process: that takes a moment when it is current, and
//! makes sure that no test runs a binary of yesterday.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the workspace.
///
/// # Panics
/// Never: this package lies in the workspace.
#[must_use]
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// The fixture server; built if it is not there.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn fixture_binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let path = beside("machina-fixture");
            if path.is_file() { path } else { build("machina-tests", "machina-fixture") }
        })
        .clone()
}

/// The farm of many servers; built if it is not there.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn farm_binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let path = beside("machina-farm");
            if path.is_file() { path } else { build("machina-tests", "machina-farm") }
        })
        .clone()
}

/// Builds the farm anew, for programs that cargo does not build it along with.
///
/// # Panics
/// If it cannot be built.
pub fn build_farm() {
    build("machina-tests", "machina-farm");
}

/// The binary `machina`; built if it is not there or not current.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn machina_binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("machina-http", "machina")).clone()
}

/// The directory of cargo's profile that the running program was built into.
fn profile_directory() -> PathBuf {
    let program = std::env::current_exe().expect("a program knows where it is");
    let mut directory = program.parent().expect("a program lies in a directory");
    if directory.file_name().is_some_and(|name| name == "deps" || name == "examples") {
        directory = directory.parent().expect("deps lies in a profile's directory");
    }
    directory.to_owned()
}

fn beside(binary: &str) -> PathBuf {
    profile_directory().join(format!("{binary}{}", std::env::consts::EXE_SUFFIX))
}

fn build(package: &str, binary: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace_root()).args(["build", "--quiet", "-p", package, "--bin", binary]);
    if profile_directory().ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo, which built this program, can be started");
    assert!(output.status.success(), "cargo build -p {package}: {}", String::from_utf8_lossy(&output.stderr));
    let path = beside(binary);
    assert!(path.is_file(), "cargo build -p {package} --bin {binary} did not make {}", path.display());
    path
}
