//! Many MCP servers in one process, for tests of quantity: each has an address of
//! its own in 127.0.0.0/8 and a real listener there, counts what it executes, and
//! is killed, silenced, cut or driven mad on command. As a child over stdio it is
//! one server with faults of that transport.
//!
//! Refuses to be lenient or clever: no SDK stands between a fault and the wire.

mod connection;
mod control;
mod instance;
mod ledger;
mod mcp;
mod stdio;
mod wire;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, ValueEnum};
use machina_core::Tasks;
use machina_tests::farm::Whereabouts;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use control::Control;
use instance::{Instance, listen};
use ledger::Ledger;
use mcp::{Eras, Speaker};

/// The networks that are tried, each the second byte of an address.
const NETWORKS: std::ops::Range<u32> = 16..240;

/// Many MCP servers that fail as they are told.
#[derive(Debug, Parser)]
#[command(name = "machina-farm", version)]
enum Cli {
    /// Hosts any number over Streamable HTTP until stdin ends.
    Http(Http),
    /// Is one over stdin and stdout.
    Stdio(stdio::Options),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SpokenEra {
    Legacy,
    Modern,
    /// By turns.
    Mixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    None,
    All,
    /// By turns.
    Some,
}

impl Which {
    fn of(self, turn: bool) -> bool {
        self == Self::All || (self == Self::Some && turn)
    }
}

#[derive(Debug, Args)]
struct Http {
    #[arg(long, default_value_t = 3)]
    instances: usize,
    /// Which revision of MCP instances speak.
    #[arg(long, value_enum, default_value = "mixed")]
    era: SpokenEra,
    /// Which instances answer calls with a stream of events.
    #[arg(long, value_enum, default_value = "some")]
    events: Which,
    /// Which instances keep a connection open on which they would announce changes.
    #[arg(long, value_enum, default_value = "some")]
    announce: Which,
}

#[tokio::main]
async fn main() -> ExitCode {
    let tasks = Tasks::new();
    let served = match Cli::parse() {
        Cli::Http(http) => serve(&http, &tasks).await,
        Cli::Stdio(options) => stdio::serve(&options, &tasks).await,
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "machina-farm: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(http: &Http, tasks: &Tasks) -> io::Result<()> {
    allow_many_files()?;
    let (whereabouts, listeners) = take_addresses(http.instances)?;
    let ledger = Arc::<Ledger>::default();
    let mut instances = Vec::with_capacity(listeners.len());
    for (number, listener) in listeners.into_iter().enumerate() {
        // Three turns of different length, so that every combination occurs.
        let legacy = http.era == SpokenEra::Legacy || (http.era == SpokenEra::Mixed && number % 2 == 1);
        let eras = Eras { legacy, modern: !legacy };
        let speaker = Speaker { eras, announces: http.announce.of(number / 4 % 2 == 0) };
        let events = http.events.of(number / 2 % 2 == 1);
        let instance = Arc::new(Instance::new(listener.local_addr()?, speaker, events, Arc::clone(&ledger)));
        tasks.spawn("instance", Arc::clone(&instance).serve(listener, tasks.clone()));
        instances.push(instance);
    }
    let control = Control { instances: Arc::new(instances), ledger, tasks: tasks.clone() };
    let whereabouts = Whereabouts { control: control::serve(control).await?, ..whereabouts };
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(&whereabouts)?)?;
    stdout.flush()?;
    until_stdin_ends().await;
    Ok(())
}

/// Whoever started the farm holds its stdin, and lets go of it by any end.
async fn until_stdin_ends() {
    let (mut stdin, mut buffer) = (tokio::io::stdin(), [0; 64]);
    while matches!(stdin.read(&mut buffer).await, Ok(1..)) {}
}

/// As many open files as this process may have.
fn allow_many_files() -> io::Result<()> {
    let most = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?)
}

/// A port that is free at each of `count` addresses of one network.
fn take_addresses(count: usize) -> io::Result<(Whereabouts, Vec<TcpListener>)> {
    let mut failed = None;
    let span = NETWORKS.end - NETWORKS.start;
    for attempt in 0..span {
        let network = NETWORKS.start + (std::process::id() + attempt * 7) % span;
        match in_network(u8::try_from(network).unwrap_or(u8::MAX), count) {
            Ok(taken) => return Ok(taken),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn in_network(network: u8, count: usize) -> io::Result<(Whereabouts, Vec<TcpListener>)> {
    let mut whereabouts = Whereabouts { control: String::new(), network, port: 0, instances: count };
    let mut listeners = Vec::with_capacity(count);
    for number in 0..count {
        let listener = listen(SocketAddr::from((whereabouts.host(number), whereabouts.port)))?;
        whereabouts.port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok((whereabouts, listeners))
}
