//! Registers one MCP server, waits until it has settled, finds a tool and calls it.
//!
//! ```text
//! cargo run -p machina-examples --bin one_server
//! cargo run -p machina-examples --bin one_server -- "current time" '{"timezone": "Europe/Paris"}' uvx mcp-server-time
//! ```
//!
//! Without arguments it starts a test server of the MCP project through `npx`,
//! which needs Node.js and downloads the package once.

#![allow(clippy::print_stdout, reason = "it is there to show something")]

use std::process::ExitCode;
use std::time::Duration;

use machina_core::{
    CallOptions, Error, EventKind, HealthState, Instance, Machina, Mutation, Next, Result, ServiceSpec, StdioEndpoint,
    ToolCall, ToolName,
};
use machina_mcp::client::{ClientConfig, Environment, connectors};

const DEFAULT: [&str; 6] = [
    "echo a message",
    r#"{"message": "hello"}"#,
    "npx",
    "-y",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "stdio",
];

#[tokio::main]
async fn main() -> ExitCode {
    match one_server().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.message());
            ExitCode::FAILURE
        }
    }
}

async fn one_server() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        words = DEFAULT.map(String::from).to_vec();
    }
    let [text, arguments, command, args @ ..] = words.as_slice() else {
        return Err(Error::invalid("usage: one_server [TEXT ARGUMENTS COMMAND [ARG]…]"));
    };
    let arguments = serde_json::from_str(arguments)
        .map_err(|error| Error::invalid_field("ARGUMENTS", format!("must be a JSON object: {error}")))?;

    // The store forgets everything with this directory; a path of your own keeps it.
    let directory = tempfile::tempdir().map_err(|error| Error::internal("no temporary directory").caused_by(error))?;
    let backend = machina_store::open(&format!("sqlite:{}", directory.path().join("machina.db").display())).await?;
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let connectors = connectors(ClientConfig::default(), Environment::new(variables))?;
    let machina = Machina::builder().backend(backend).connectors(connectors).open().await?;

    let done = run(&machina, StdioEndpoint::new(command, args), text, arguments).await;
    // Ends the child process. The end of this program would end it too, less politely.
    machina.close().await;
    done
}

async fn run(
    machina: &Machina,
    endpoint: StdioEndpoint,
    text: &str,
    arguments: serde_json::Map<String, serde_json::Value>,
) -> Result<()> {
    let spec = ServiceSpec::new("first")?.instance(Instance::new(endpoint));
    machina.apply(vec![Mutation::Put(spec)]).await?;
    tokio::time::timeout(Duration::from_secs(180), settled(machina, "first"))
        .await
        .map_err(|_| Error::timeout("the server has not settled within 3 minutes"))??;

    let found = machina.find_tools(text, 1).await?;
    let tool = found.first().ok_or_else(|| Error::not_found(format!("no tool fits `{text}`")))?;
    let name = tool.definition.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
    println!("`{text}` is what {}/{name} is for", tool.service);

    let call = ToolCall { service: tool.service.clone(), tool: ToolName::new(name)?, arguments };
    let report = machina.call(&call, &CallOptions::default()).await?;
    println!("it answered in {:.1} ms: {}", report.duration_ms, report.result.text());
    Ok(())
}

/// Waits until it is decided whether the service is up, and prints what happens meanwhile.
async fn settled(machina: &Machina, name: &str) -> Result<()> {
    let mut events = machina.watch();
    loop {
        let health = machina.health(name).await?;
        match health.health.state {
            HealthState::Healthy => break,
            HealthState::Unhealthy => return Err(Error::unavailable(health.health.reason.message)),
            _ => {}
        }
        if let Next::Event(event) = events.next().await {
            let service = event.service.as_ref().map(ToString::to_string).unwrap_or_default();
            match &event.kind {
                EventKind::HealthChanged { from, to, .. } => {
                    println!("{service}: {} -> {}", from.as_str(), to.as_str())
                }
                EventKind::DefinitionsChanged { added, .. } => {
                    println!("{service}: offers {}", added.join(", "))
                }
                _ => {}
            }
        }
    }
    Ok(())
}
