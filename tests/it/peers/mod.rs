//! Machina against programs that no one here wrote: the conformance suites of
//! MCP, the inspector, and the official clients. Behind it is the fixture with
//! what the suites expect, in flat mode and without prefixes, so that what they
//! see is what a server of their own would offer.

mod clients;
mod conformance;
mod inspector;

use std::path::PathBuf;
use std::time::Duration;

use machina_tests::{MachinaProcess, fixture_binary, wait_until};
use serde_json::json;
use tempfile::TempDir;

use crate::serve::healthy;

const SOON: Duration = Duration::from_secs(30);

/// Configuration files of Machina with the fixture behind it.
struct Setup {
    directory: TempDir,
}

impl Setup {
    /// With a fixture that speaks `era` over stdio.
    fn new(era: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let args = ["stdio", "--profile", "conformance", "--era", era];
        let servers = json!({"fixture": {"command": fixture_binary(), "args": args}});
        std::fs::write(directory.path().join("mcp.json"), json!({"mcpServers": servers}).to_string()).unwrap();
        let config = "[mcp]\nmode = \"flat\"\nprefix = \"none\"\n";
        std::fs::write(directory.path().join("machina.toml"), config).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        PathBuf::from(self.directory.path()).join(name).to_str().unwrap().to_owned()
    }

    /// The arguments that `machina serve` and `machina mcp` have in common.
    fn args(&self) -> [String; 4] {
        ["--config".to_owned(), self.path("machina.toml"), "--import".to_owned(), self.path("mcp.json")]
    }

    /// `machina serve`, with what the fixture offers known.
    async fn serve(&self) -> MachinaProcess {
        let args = self.args();
        let machina = MachinaProcess::serve(&args.each_ref().map(String::as_str)).await;
        healthy(&machina, "fixture").await;
        wait_until(SOON, "the tools of the fixture are known", async || {
            let service = machina.get("/api/v1/services/fixture").await.body;
            if service["tool_count"].as_u64() > Some(0) { Ok(()) } else { Err(service.to_string()) }
        })
        .await;
        machina
    }
}
