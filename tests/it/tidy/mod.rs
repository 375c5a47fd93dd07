//! Rules that no compiler checks. Each check is a function that lists what is
//! wrong; each has a test that feeds it something wrong, because a rule that
//! cannot fail is no rule.

mod dependencies;
mod sources;

use std::path::PathBuf;
use std::process::Command;

use machina_tests::workspace_root;

/// What a program printed that must succeed.
fn output_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(workspace_root()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {complaint}", args.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// A file of the repository.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    fn has_extension(&self, extensions: &[&str]) -> bool {
        self.path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))
    }
}

/// Every text file that is tracked, or would be if it were added.
fn sources() -> Vec<Source> {
    let listed = output_of("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let paths = listed.split('\0').filter(|path| !path.is_empty());
    let sources: Vec<_> = paths
        .filter_map(|path| {
            // A file that was deleted but not yet committed is listed too.
            let bytes = std::fs::read(workspace_root().join(path)).ok()?;
            Some(Source::new(path, &String::from_utf8(bytes).ok()?))
        })
        .collect();
    assert!(sources.len() > 50, "git lists only {} files: is this a checkout?", sources.len());
    sources
}

fn assert_clean(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problem(s):\n{}", problems.len(), problems.join("\n"));
}
