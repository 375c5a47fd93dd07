//! One server over stdin and stdout, and what a child can do to whoever started
//! it: die at any byte, read nothing, never end a line, flood stderr.
//!
//! SIGUSR2 makes it write junk to stdout, SIGHUP flood stderr for a moment.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use clap::Args;
use machina_core::Tasks;
use machina_tests::farm::{Cut, End, Side, Sizes};
use machina_tests::{JournalEntry, JournalEvent, JournalFile};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::mcp::{Asked, Call, Eras, Speaker};

/// How many lines of junk come at SIGUSR2, and how many lines of stderr at SIGHUP.
const JUNK_LINES: usize = 50;
const FLOOD_LINES: u64 = 100_000;
/// How much of a long line is written at a time, in bytes.
const PIECE: usize = 64 * 1024;
/// How often a second lines are written to stderr.
const STROKES: u32 = 100;

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Where executions are recorded.
    #[arg(long)]
    journal: Option<PathBuf>,
    /// A directory in which children agree who makes the cut of a call.
    #[arg(long)]
    claims: Option<PathBuf>,
    /// Means nothing; by it, processes of one test are found.
    #[arg(long)]
    mark: Option<String>,
}

/// Serves until stdin ends.
pub(crate) async fn serve(options: &Options, tasks: &Tasks) -> io::Result<()> {
    obey_signals(tasks)?;
    let speaker = Speaker { eras: Eras { legacy: true, modern: true }, announces: false };
    let further = faults();
    let mut stdin = BufReader::new(tokio::io::stdin());
    let mut line = Vec::new();
    loop {
        line.clear();
        if stdin.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else { continue };
        if message["method"] == "tools/call"
            && let Some(answer) = misbehave(&message, tasks).await?
        {
            write(&answer).await?;
            if message["params"]["name"] == "deafen" {
                return std::future::pending().await;
            }
            continue;
        }
        match speaker.asked(&message, &further) {
            Asked::Nothing => {}
            Asked::Session(answer) | Asked::Simple { answer, .. } | Asked::Changes(answer) => write(&answer).await?,
            Asked::Call(call) => called(options, &line, call).await?,
        }
    }
}

/// Carries a call out and answers it, unless it is to be cut.
async fn called(options: &Options, request: &[u8], call: Call) -> io::Result<()> {
    let claims = options.claims.as_ref();
    let cut = call.cut.filter(|_| claims.is_some_and(|claims| claimed(claims, &call.id)));
    let response = line_of(&call.answer);
    match cut {
        Some(Cut { side: Side::Request, after, end }) if after < request.len() => die(end),
        Some(Cut { side: Side::Nothing, .. }) => {
            let sizes = Sizes { request: request.len(), response: response.len(), answer: response.len() };
            let path = claims.map(|claims| claims.join(format!("{}.json", call.id))).unwrap_or_default();
            std::fs::write(path, serde_json::to_vec(&sizes)?)?;
        }
        _ => {}
    }
    if let Some(path) = &options.journal {
        let (event, pid) = (JournalEvent::Executed, process::id());
        let entry = JournalEntry { event, tool: call.class.tool().to_owned(), id: Some(call.id), pid };
        JournalFile::new(path).append(&entry)?;
    }
    tokio::time::sleep(call.takes).await;
    match cut {
        Some(Cut { side: Side::Request, end, .. }) => die(end),
        Some(Cut { side: Side::Response, after, end }) => {
            write_bytes(&response[..after.min(response.len())]).await?;
            die(end)
        }
        _ => write_bytes(&response).await,
    }
}

/// Whether this is the first attempt of the call `id`: one file can be made once only.
fn claimed(directory: &Path, id: &str) -> bool {
    std::fs::File::options().write(true).create_new(true).open(directory.join(id)).is_ok()
}

fn die(end: End) -> ! {
    if end == End::Reset {
        let _ = kill_process(getpid(), Signal::KILL);
    }
    process::exit(0)
}

/// The tools that do harm to whoever listens.
fn faults() -> Vec<Value> {
    let tool = |name: &str, properties: Value| {
        json!({"name": name, "description": "Does harm.",
               "inputSchema": {"type": "object", "properties": properties}})
    };
    let integer = || json!({"type": "integer", "minimum": 0});
    vec![
        tool("deafen", json!({})),
        tool("long_line", json!({"bytes": integer()})),
        tool("flood", json!({"lines_per_second": integer(), "seconds": integer()})),
    ]
}

/// Does what a tool of [`faults`] says, and returns its answer; `None` if it is another one.
async fn misbehave(message: &Value, tasks: &Tasks) -> io::Result<Option<Value>> {
    let arguments = &message["params"]["arguments"];
    let number = |name: &str| arguments[name].as_u64().unwrap_or_default();
    match message["params"]["name"].as_str().unwrap_or_default() {
        "deafen" => {}
        "long_line" => {
            let mut left = usize::try_from(number("bytes")).unwrap_or_default();
            let piece = vec![b'x'; PIECE];
            while left > 0 {
                let size = left.min(PIECE);
                write_bytes(&piece[..size]).await?;
                left -= size;
            }
            write_bytes(b"\n").await?;
        }
        "flood" => {
            let (per_second, seconds) = (number("lines_per_second"), number("seconds"));
            tasks.spawn("flood", flood(per_second, seconds));
        }
        _ => return Ok(None),
    }
    let modern = message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_string();
    let mut result = json!({"content": [{"type": "text", "text": "done"}]});
    if modern {
        result["resultType"] = json!("complete");
    }
    Ok(Some(json!({"jsonrpc": "2.0", "id": message["id"], "result": result})))
}

/// Writes so many lines to stderr each second, as far as the reader lets it.
async fn flood(per_second: u64, seconds: u64) {
    let started = Instant::now();
    let stroke = Duration::from_secs(1) / STROKES;
    let lines = usize::try_from(per_second / u64::from(STROKES)).unwrap_or_default();
    let piece = "a line that nobody will ever read\n".repeat(lines);
    for number in 1..=u32::try_from(seconds).unwrap_or_default() * STROKES {
        let piece = piece.clone();
        let written = tokio::task::spawn_blocking(move || io::stderr().write_all(piece.as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
        sleep_until(started + stroke * number).await;
    }
}

fn obey_signals(tasks: &Tasks) -> io::Result<()> {
    let (mut junk, mut hangup) = (signal(SignalKind::user_defined2())?, signal(SignalKind::hangup())?);
    tasks.spawn("junk", async move {
        while junk.recv().await.is_some() {
            let _ = write_bytes("no JSON-RPC at all\n".repeat(JUNK_LINES).as_bytes()).await;
        }
    });
    tasks.spawn("flood at a signal", async move {
        while hangup.recv().await.is_some() {
            flood(FLOOD_LINES, 1).await;
        }
    });
    Ok(())
}

fn line_of(message: &Value) -> Vec<u8> {
    format!("{message}\n").into_bytes()
}

async fn write(message: &Value) -> io::Result<()> {
    write_bytes(&line_of(message)).await
}

async fn write_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = tokio::io::stdout();
    stdout.write_all(bytes).await?;
    stdout.flush().await
}
