//! The command line. What it says is also the help that `machina --help` prints.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use machina_core::{AdminState, InstanceId};
use machina_mcp::formats::Client;

/// A registry for MCP servers: knows them, watches their health, and carries
/// tool calls to a healthy one.
#[derive(Debug, Parser)]
#[command(name = "machina", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Write JSON for programs instead of tables for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Read the configuration from this file (TOML, or JSON if it ends in .json) [env: MACHINA_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Keep services and history here: `sqlite:PATH` or `memory:`.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Share this Redis with other replicas, for wake-ups, limits and kept answers: `redis://HOST`.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// What to log to stderr, such as `debug` or `warn,machina_mcp=trace`.
    #[arg(long, global = true, value_name = "FILTER", env = "MACHINA_LOG")]
    pub(crate) log: Option<String>,
    /// How to log.
    #[arg(long, global = true, value_name = "FORMAT", env = "MACHINA_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Which Machina a command asks.
#[derive(Debug, Clone, Args)]
pub(crate) struct Where {
    /// Ask the Machina that runs at this address [env: MACHINA_URL]; otherwise
    /// the one on this machine if it runs, and otherwise the store itself.
    #[arg(long, value_name = "URL", conflicts_with = "store")]
    pub(crate) url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve REST and MCP over HTTP, and watch the services.
    Serve(Serve),
    /// Serve MCP on stdin and stdout, for a host that starts it.
    Mcp(Mcp),
    /// Declare the MCP servers of other programs' configuration files.
    Import(Import),
    /// List the services.
    Services(Services),
    /// Show one service.
    Service(Service),
    /// List the tools.
    Tools(Tools),
    /// Find tools by what they are to do.
    Find(Find),
    /// List the groups: selections of tools with an MCP endpoint of their own.
    Groups(Groups),
    /// Call a tool.
    Call(Call),
    /// Show how the services are; on a store, check them now.
    Health(Health),
    /// Say whether a service, or one instance of it, is to be used.
    Admin(Admin),
    /// Take the tools of a service as they are now for those that are trusted.
    Pin(Pin),
    /// Show the alerts, or try out whom they reach.
    Alerts(Alerts),
    /// Remove a service.
    Remove(Remove),
    /// Say where a call would go, and why.
    Explain(Explain),
    /// Write the configuration of an MCP host.
    Export(Export),
    /// Copy another registry into this one.
    #[command(subcommand)]
    Registry(Registry),
    /// Copy a whole store, or back one up.
    #[command(subcommand)]
    Store(Store),
    /// Look at the configuration of Machina itself.
    #[command(subcommand)]
    Config(Config),
    /// End the children of the Machina that starts this, when it ends.
    #[command(hide = true)]
    Shepherd,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Listen here; only loopback addresses until there is authentication [default: 127.0.0.1:8000].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// Declare the MCP servers of this file at every start; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) import: Vec<PathBuf>,
    /// Serve these tools that come with Machina: calculator, strings, transform.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) builtin: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Mcp {
    /// Serve HTTP as well, at this address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// Which tools the host sees: `meta` for five that reach every other, `flat`
    /// for every tool by itself [default: meta].
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<String>,
    /// Declare the MCP servers of this file at every start; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) import: Vec<PathBuf>,
    /// Serve these tools that come with Machina: calculator, strings, transform.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) builtin: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) at: Where,
    /// The files; `-` is stdin. The format is told by the content.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Only show what would change.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Services {
    #[command(flatten)]
    pub(crate) at: Where,
    /// Only those that match: text, name, build_type, required, build_priority,
    /// enabled, status, tags, capability, region, environment, tenant, category or tool.
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Sort by name, created_at, updated_at, build_priority or status; `-` before it reverses.
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    pub(crate) order: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Service {
    #[command(flatten)]
    pub(crate) at: Where,
    /// The service.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Tools {
    #[command(flatten)]
    pub(crate) at: Where,
    /// Only those of this service.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Groups {
    #[command(flatten)]
    pub(crate) at: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Find {
    #[command(flatten)]
    pub(crate) at: Where,
    /// What the tool is to do, in words.
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
    /// How many to show at most, 1 to 100.
    #[arg(long, default_value_t = 10)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) at: Where,
    /// The service.
    pub(crate) service: String,
    /// The tool.
    pub(crate) tool: String,
    /// The arguments: one JSON object, `-` for one on stdin, or KEY=VALUE pairs.
    #[arg(value_name = "{JSON} | KEY=VALUE")]
    pub(crate) arguments: Vec<String>,
    /// What came on stdin, if that is where the arguments are.
    #[arg(skip)]
    pub(crate) stdin: Option<String>,
    /// How long it may take in all, such as 30s.
    #[arg(long, value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Health {
    #[command(flatten)]
    pub(crate) at: Where,
    /// Only this service, with each of its instances.
    pub(crate) name: Option<String>,
    /// Go on until interrupted: look every second, and show what is another since.
    /// On a store, start and watch the services meanwhile.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Admin {
    #[command(flatten)]
    pub(crate) at: Where,
    /// The service.
    pub(crate) name: String,
    /// enabled: in use; draining: finishes what it has, gets nothing new; disabled: not
    /// used and not probed; maintenance: not used, probed; quarantined: not trusted.
    #[arg(value_name = "STATE", value_parser = admin_state)]
    pub(crate) state: AdminState,
    /// Only this instance, by its `id`.
    #[arg(long, value_name = "ID")]
    pub(crate) instance: Option<InstanceId>,
}

#[derive(Debug, Args)]
pub(crate) struct Pin {
    #[command(flatten)]
    pub(crate) at: Where,
    /// The service.
    pub(crate) name: String,
    /// From now on, a tool that is new or another one is not offered until it is pinned.
    #[arg(long, conflicts_with = "report")]
    pub(crate) strict: bool,
    /// From now on, a tool that is new or another one is offered, and an event says so.
    #[arg(long)]
    pub(crate) report: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Alerts {
    #[command(flatten)]
    pub(crate) at: Where,
    #[command(subcommand)]
    pub(crate) command: Option<AlertsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// Show what fires, what is over, and how the channels are; also without this word.
    List {
        #[command(flatten)]
        at: Where,
    },
    /// Send a test message to every channel.
    Test {
        #[command(flatten)]
        at: Where,
        /// Only to this one.
        #[arg(long, value_name = "NAME")]
        channel: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    pub(crate) at: Where,
    /// The service.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) at: Where,
    /// The service, or one tool of it.
    #[arg(value_name = "SERVICE[/TOOL]")]
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) at: Where,
    /// The host: claude-code, claude-desktop, cursor, vscode, zed, codex, gemini, windsurf or opencode.
    #[arg(long, value_name = "HOST", value_parser = client)]
    pub(crate) client: Client,
    /// Write Machina itself as the one server, instead of every service.
    #[arg(long)]
    pub(crate) gateway: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    /// Register what another registry has, and from then on what changes there: any
    /// that has the API of the official MCP registry, such as another Machina.
    Sync(Sync),
}

#[derive(Debug, Args)]
pub(crate) struct Sync {
    #[command(flatten)]
    pub(crate) at: Where,
    /// The address of the other registry, such as `https://registry.example.com`.
    #[arg(value_name = "REGISTRY")]
    pub(crate) from: String,
    /// Put this before each name; after a slash at its end, the slash in a name becomes a dot.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) prefix: String,
    /// Only show what would change.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Look at everything, not only at what changed there since the last time.
    #[arg(long)]
    pub(crate) full: bool,
    /// Remove what came from there and is not there any more; looks at everything.
    #[arg(long)]
    pub(crate) prune: bool,
    /// Use commands and placeholders at once. Without this they are registered
    /// disabled, for you to look at: they run as you, and read your environment.
    #[arg(long)]
    pub(crate) allow_commands: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Copy everything that the store FROM keeps to the store TO, and compare the two.
    /// What was interrupted goes on when it is run again; FROM is not changed.
    Copy {
        /// The address of the store to copy. A server may use it, if it is a SQLite file.
        #[arg(value_name = "FROM")]
        from: String,
        /// The address of the store to copy to; made if there is none.
        #[arg(value_name = "TO")]
        to: String,
        /// Overwrite what else TO holds.
        #[arg(long)]
        replace: bool,
    },
    /// Write the SQLite store to a new file, also while a server uses it.
    Backup {
        /// The file to make.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make a backup the SQLite store again. The store before is kept beside it.
    Restore {
        /// The backup.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only if this is its SHA-256, in hex.
        #[arg(long, value_name = "HASH")]
        sha256: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Config {
    /// Say what is wrong with it, and where.
    Check {
        /// The configuration file; the same as --config.
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
    },
    /// Print what is in effect, and where each value comes from.
    Print,
    /// Print its JSON Schema.
    Schema,
}

fn client(text: &str) -> Result<Client, String> {
    let known = || Client::ALL.iter().map(|client| client.as_str()).collect::<Vec<_>>();
    text.parse().map_err(|_| format!("must be one of {}", known().join(", ")))
}

fn admin_state(text: &str) -> Result<AdminState, String> {
    let state = serde_json::from_value(text.into());
    state.map_err(|_| "must be enabled, draining, disabled, maintenance or quarantined".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    #[derive(serde::Deserialize)]
    struct Wire {
        #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
        timeout: Duration,
    }
    let wire = serde_json::from_value::<Wire>(serde_json::json!({ "timeout": text }));
    wire.map(|wire| wire.timeout).map_err(|_| "must be a time such as 500ms, 30s or 2m".to_owned())
}
