//! Registers the fleet with one Machina and prints what came of it:
//!
//! ```text
//! cargo run --release -p machina-tests --bin fleet-report -- --all
//! ```
//!
//! Exits with 1 unless every server is healthy, has the tools it should have,
//! answers its harmless call, has each tool listed in flat mode under a name
//! that leads back to it, and leaves no process behind.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use machina_core::HealthState;
use machina_tests::FlatReport;
use machina_tests::fleet::{self, FleetReport, ServerReport};

/// How much of an answer or a reason is shown.
const SHOWN_CHARS: usize = 60;

/// Registers real MCP servers and reports on each.
#[derive(Debug, Parser)]
#[command(name = "fleet-report")]
struct Cli {
    /// Every installed server, not only those that CI runs.
    #[arg(long)]
    all: bool,
    /// Only these.
    names: Vec<String>,
    /// The list that the installer wrote.
    #[arg(long)]
    list: Option<PathBuf>,
    /// Seconds that they have to settle.
    #[arg(long, default_value_t = 300)]
    patience: u64,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let list = cli.list.clone().unwrap_or_else(fleet::default_list);
    let mut servers = match fleet::installed(&list) {
        Ok(servers) => servers,
        Err(error) => {
            say(&mut std::io::stderr(), &error);
            return ExitCode::from(2);
        }
    };
    match cli.names.as_slice() {
        [] => servers.retain(|server| cli.all || server.ci),
        names => servers.retain(|server| names.contains(&server.name)),
    }
    let count = servers.len();
    say(&mut std::io::stderr(), &format!("registering {count} servers"));
    let report = fleet::run(&servers, Duration::from_secs(cli.patience), |name, state| {
        say(&mut std::io::stderr(), &format!("{name}: {}", state.as_str()));
    })
    .await;
    let text = match cli.json {
        true => serde_json::to_string_pretty(&report).unwrap_or_default(),
        false => table(&report),
    };
    say(&mut std::io::stdout(), &text);
    if report.is_good() && count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A closed pipe is no reason to fail.
fn say(to: &mut dyn Write, text: &str) {
    let _ = writeln!(to, "{text}");
}

fn table(report: &FleetReport) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["server", "health", "settled", "MCP", "tools", "harmless call"]);
    for server in &report.servers {
        let health = match server.state {
            HealthState::Healthy => "healthy".to_owned(),
            state => format!("{}: {}", state.as_str(), shown(&server.reason)),
        };
        let tools = match server.tools == server.expected_tools {
            true => server.tools.to_string(),
            false => format!("{} of {}", server.tools, server.expected_tools),
        };
        let call = match &server.call {
            None => "has none".to_owned(),
            Some(Ok(answer)) => format!("answered: {}", shown(answer)),
            Some(Err(error)) => format!("FAILED: {}", shown(error)),
        };
        let settled = server.settled_after.map_or_else(|| "no".to_owned(), |seconds| format!("{seconds:.1} s"));
        let version = server.protocol_version.clone().unwrap_or_default();
        table.add_row([server.name.clone(), health, settled, version, tools, call]);
    }
    format!("{table}\n{}", summary(report))
}

fn summary(report: &FleetReport) -> String {
    let all = report.servers.len();
    let count = |good: fn(&ServerReport) -> bool| report.servers.iter().filter(|server| good(server)).count();
    let healthy = count(|server| server.state == HealthState::Healthy);
    let exact = count(|server| server.tools == server.expected_tools);
    let (found, expected) = report
        .servers
        .iter()
        .fold((0, 0), |(found, expected), server| (found + server.tools, expected + server.expected_tools));
    let callable = count(|server| server.call.is_some());
    let answered = count(|server| matches!(server.call, Some(Ok(_))));
    let settled = report.settled_after.map_or_else(|| "not all in time".to_owned(), |s| format!("{s:.1} s"));
    let flat: Vec<String> = report.flat.iter().map(shown_flat).collect();
    let megabytes = |bytes: u64| bytes / 1_000_000;
    format!(
        "healthy {healthy}/{all}\n\
         tools {found} found, {expected} expected; {exact}/{all} servers exactly as expected\n\
         harmless calls answered {answered}/{callable}\n\
         {}\n\
         settled after {settled}\n\
         RSS of Machina {} MB ({} MB before)\n\
         children {} while running, {} left after stop ({:.1} s)",
        flat.join("\n"),
        megabytes(report.resident_after),
        megabytes(report.resident_before),
        report.children,
        report.children_left,
        report.closed_after,
    )
}

fn shown_flat(flat: &FlatReport) -> String {
    let mut shown = format!(
        "flat mode, prefix {}: {} tools of {}, {} names, {} resolved, {} with a suffix, longest {} characters, \
         {} harmless calls answered",
        serde_json::to_value(flat.prefix).unwrap_or_default().as_str().unwrap_or_default(),
        flat.tools,
        flat.published,
        flat.distinct,
        flat.resolved,
        flat.suffixed,
        flat.longest,
        flat.answered,
    );
    for wrong in &flat.wrong {
        shown.push_str("\n  WRONG: ");
        shown.push_str(wrong);
    }
    shown
}

fn shown(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = line.chars().take(SHOWN_CHARS).collect();
    if line.chars().count() > SHOWN_CHARS {
        shown.push('…');
    }
    shown
}
