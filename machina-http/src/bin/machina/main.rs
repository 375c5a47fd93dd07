//! `machina`: the command line over the library. It reads arguments, the
//! environment and files, asks the facade (here or over HTTP), and shows the
//! answer. It holds no rule of the registry.

mod cli;
mod commands;
mod connect;
mod declare;
mod exit;
mod logging;
mod output;
mod paths;
mod reach;
mod screen;
mod serve;
mod settings;
mod settle;
mod signals;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use machina_core::{Error, Result, Tasks};
use machina_mcp::formats::Note;
use serde_json::json;

use cli::{Cli, Command, LogFormat};
use exit::Ended;
use logging::Loudness;
use output::Output;
use paths::Variables;
use reach::{Watch, with};
use screen::Screen;
use settings::{Effective, Flags};

/// The allocator of the C library takes a fifth of what carrying a call costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the end of the process waits for threads that read stdin or resolve
/// names; they have nothing to lose.
const LAST_THREADS: Duration = Duration::from_millis(500);

/// What every command has at hand.
#[derive(Debug)]
struct App {
    cli: cli::Common,
    variables: Variables,
    output: Output,
    screen: Screen,
    tasks: Tasks,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no error; a closed pipe is none either.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    if matches!(cli.command, Command::Shepherd) {
        // Before anything is begun that costs memory or a thread.
        return shepherd();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return exit::exit_code(&Err(Error::internal("the runtime does not start").caused_by(error)));
        }
    };
    let code = runtime.block_on(start(cli));
    // Whatever is left is dropped here, child processes included.
    runtime.shutdown_timeout(LAST_THREADS);
    code
}

fn shepherd() -> ExitCode {
    let outcome = machina_mcp::client::run_shepherd();
    if let Err(error) = &outcome {
        fail(&Output::new(false, false), &Screen::new(false, false), error);
    }
    exit::exit_code(&outcome.map(|()| Ended::Well))
}

async fn start(cli: Cli) -> ExitCode {
    let Cli { mut common, command } = cli;
    let variables = machina_http::assemble::process_variables();
    if let Command::Config(cli::Config::Check { file: Some(file) }) = &command {
        common.config = Some(file.clone());
    }
    let named = variables.get("MACHINA_CONFIG").filter(|path| !path.is_empty());
    common.config = common.config.or_else(|| named.map(PathBuf::from));
    let colour = variables.get("NO_COLOR").is_none_or(String::is_empty);
    let screen = Screen::new(common.json, colour);
    let output = Output::new(common.json, colour);
    let loudness = match command {
        Command::Serve(_) if !screen.is_terminal() => Loudness::Talkative,
        _ => Loudness::Quiet,
    };
    let outcome = async {
        logging::start(common.log.as_deref(), loudness, common.log_format == LogFormat::Json, &screen)?;
        let tasks = Tasks::new();
        let app = App { cli: common, variables, output: output.clone(), screen: screen.clone(), tasks };
        Box::pin(run(&app, command)).await
    }
    .await;
    if let Err(error) = &outcome {
        fail(&output, &screen, error);
    }
    exit::exit_code(&outcome)
}

async fn run(app: &App, command: Command) -> Result<Ended> {
    match command {
        Command::Serve(args) => Box::pin(serve::http(app, &args)).await,
        Command::Mcp(args) => Box::pin(serve::stdio(app, &args)).await,
        Command::Config(command) => commands::config::run(app, &command),
        Command::Store(command) => Box::pin(commands::store::run(app, &command)).await,
        // It is begun before there is an app.
        Command::Shepherd => Ok(Ended::Well),
        Command::Import(args) => {
            let files = declare::read(app, &args.files)?;
            with(app, &args.at, Watch::No, async |at| commands::import::run(app, &args, files, at).await).await
        }
        Command::Services(args) => {
            with(app, &args.at, Watch::No, async |at| commands::services::list(app, &args, at).await).await
        }
        Command::Service(args) => {
            with(app, &args.at, Watch::No, async |at| commands::services::one(app, &args, at).await).await
        }
        Command::Tools(args) => {
            with(app, &args.at, Watch::No, async |at| commands::tools::list(app, &args, at).await).await
        }
        Command::Groups(args) => with(app, &args.at, Watch::No, async |at| commands::groups::list(app, at).await).await,
        Command::Find(args) => {
            with(app, &args.at, Watch::No, async |at| commands::tools::find(app, &args, at).await).await
        }
        Command::Call(mut args) => {
            commands::call::read_stdin(&mut args)?;
            with(app, &args.at, Watch::No, async |at| commands::call::run(app, &args, at).await).await
        }
        Command::Health(args) => {
            let watch = if args.watch { Watch::Yes } else { Watch::No };
            with(app, &args.at, watch, async |at| commands::health::run(app, &args, at).await).await
        }
        Command::Admin(args) => {
            with(app, &args.at, Watch::No, async |at| commands::admin::set(app, &args, at).await).await
        }
        Command::Pin(args) => {
            with(app, &args.at, Watch::No, async |at| commands::admin::pin(app, &args, at).await).await
        }
        Command::Alerts(args) => {
            let at = commands::alerts::place(&args);
            with(app, at, Watch::No, async |at| commands::alerts::run(app, &args, at).await).await
        }
        Command::Remove(args) => {
            with(app, &args.at, Watch::No, async |at| commands::admin::remove(app, &args, at).await).await
        }
        Command::Explain(args) => {
            with(app, &args.at, Watch::No, async |at| commands::explain::run(app, &args, at).await).await
        }
        Command::Registry(cli::Registry::Sync(args)) => {
            with(app, &args.at, Watch::No, async |at| commands::registry::sync(app, &args, at).await).await
        }
        Command::Export(args) => {
            with(app, &args.at, Watch::No, async |at| commands::export::run(app, &args, at).await).await
        }
    }
}

impl App {
    /// The configuration in effect.
    fn settings(&self) -> Result<Effective> {
        self.settings_with(Flags::default())
    }

    /// The same with what the flags of a command say about it.
    fn settings_with(&self, flags: Flags<'_>) -> Result<Effective> {
        let (config, store, redis) = (self.cli.config.as_deref(), self.cli.store.as_deref(), self.cli.redis.as_deref());
        settings::load(&Flags { config, store, redis, ..flags }, &self.variables)
    }

    /// Says something about a file.
    fn remark(&self, note: &Note) {
        self.screen.line(&note.to_string());
    }

    /// Says that something was left out.
    fn complain(&self, what: impl Display) {
        self.screen.line(&format!("warning: {what}"));
    }

    /// The configuration file, as anyone finds it.
    fn config_path(&self) -> Option<String> {
        let path = std::path::absolute(self.cli.config.as_deref()?).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    /// The store that was named, as anyone finds it.
    fn store_address(&self) -> Option<String> {
        let here = std::path::absolute(".").ok()?;
        Some(paths::store_beside(&here, self.cli.store.as_deref()?))
    }
}

/// Says why the command failed.
fn fail(output: &Output, screen: &Screen, error: &Error) {
    if output.is_json() {
        let error = json!({"code": error.kind(), "message": error.message(), "context": error.context()});
        return output.json(&json!({ "error": error }));
    }
    match error.context().problems.as_slice() {
        [] | [_] => screen.line(&format!("error: {}", error.message())),
        problems => {
            screen.line(&format!("error: {} problems", problems.len()));
            problems.iter().for_each(|p| screen.line(&format!("  {}: {}", p.field, p.detail)));
        }
    }
    let lines = error.context().stderr_tail.iter().flat_map(|tail| tail.lines());
    lines.for_each(|line| screen.line(&format!("  | {line}")));
}
