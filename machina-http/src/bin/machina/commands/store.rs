//! `store`: what is done with a whole store, without opening a registry on it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use machina_core::Result;
use machina_store::{Content, Copied, CopyOptions, CopyPart, CopyProgress, Count};
use serde_json::json;

use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::paths::{default_store, shown_store};
use crate::reach::hinted;
use crate::screen::{Bar, Screen};
use crate::signals::Signals;

/// How many lines at most say how far a part is, where there is no terminal.
const LINES_OF_PART: u64 = 10;

pub(crate) async fn run(app: &App, command: &cli::Store) -> Result<Ended> {
    let signals = Signals::listen(&app.tasks)?;
    let work = async {
        match command {
            cli::Store::Copy { from, to, replace } => copy(app, from, to, *replace).await,
            cli::Store::Backup { file } => backup(app, file).await,
            cli::Store::Restore { file, sha256 } => restore(app, file, sha256.as_deref()).await,
        }
    };
    tokio::select! {
        outcome = work => outcome.map(|()| Ended::Well),
        () = signals.first() => {
            if let cli::Store::Copy { .. } = command {
                app.screen.line("interrupted: the same command goes on where this stopped");
            }
            Ok(Ended::Interrupted)
        }
    }
}

/// The store that the other commands open, too.
fn store(app: &App) -> Result<String> {
    let named = app.settings()?.settings.store.url.clone();
    named.map_or_else(|| default_store(&app.variables), Ok)
}

async fn copy(app: &App, from: &str, to: &str, replace: bool) -> Result<()> {
    let shown = Shown { screen: &app.screen, quiet: app.output.is_json(), part: Mutex::default() };
    let progress = |progress| shown.tell(progress);
    let copied = machina_store::copy(from, to, CopyOptions { replace, progress: &progress }).await;
    drop(shown.part.into_inner());
    let copied = copied.map_err(|error| hinted(error, "if that is `machina serve`, stop it and copy again"))?;
    copied.left_out.iter().for_each(|what| app.complain(format_args!("not copied: {what}")));
    if app.output.is_json() {
        app.output.json(&copied);
    } else {
        show_copied(app, to, &copied);
    }
    Ok(())
}

fn show_copied(app: &App, to: &str, copied: &Copied) {
    let mut columns = app.output.columns(&["COPIED", "#TOTAL", "#NEW"]);
    for (what, Count { total, before }) in [
        ("services", copied.services),
        ("lists of definitions", copied.definitions),
        ("groups", copied.groups),
        ("rows of configuration history", copied.configurations),
        ("journal entries", copied.entries),
        ("answers to requests", copied.replies),
    ] {
        columns.row([what.to_owned(), total.to_string(), (total - before).to_string()]);
    }
    app.output.table(columns);
    app.output.line(format!("{} is at revision {}; both stores hold", shown_store(to), copied.revision));
    app.output.line(format!("sha256 {}", copied.sha256));
}

async fn backup(app: &App, file: &Path) -> Result<()> {
    let url = store(app)?;
    let made = machina_store::backup(&url, file).await?;
    if app.output.is_json() {
        app.output.json(&json!({"store": shown_store(&url), "file": file, "backup": made}));
        return Ok(());
    }
    app.output.line(format!("{}: {} bytes, {}", file.display(), made.bytes, described(&made.content)));
    app.output.line(format!("sha256 {}", made.sha256));
    Ok(())
}

async fn restore(app: &App, file: &Path, sha256: Option<&str>) -> Result<()> {
    let url = store(app)?;
    let hint = "if that is `machina serve`, stop it first";
    let restored = machina_store::restore(&url, file, sha256).await.map_err(|error| hinted(error, hint))?;
    if app.output.is_json() {
        app.output.json(&json!({"store": shown_store(&url), "file": file, "restored": restored}));
        return Ok(());
    }
    app.output.line(format!("{}: {}", shown_store(&url), described(&restored.content)));
    app.output.line(format!("from {}, sha256 {}", file.display(), restored.sha256));
    if let Some(kept) = &restored.kept {
        app.output.line(format!("the store before is {}", kept.display()));
    }
    Ok(())
}

fn described(content: &Content) -> String {
    let Content { revision, services, tools, groups, entries } = content;
    format!("revision {revision}, {services} services, {tools} tools, {groups} groups, {entries} journal entries")
}

/// How far a copy is: a bar on a terminal, lines elsewhere, nothing for programs.
struct Shown<'a> {
    screen: &'a Screen,
    quiet: bool,
    part: Mutex<Option<Part>>,
}

struct Part {
    part: CopyPart,
    bar: Option<Bar>,
    /// How many lines said how far it is.
    lines: u64,
}

impl Shown<'_> {
    fn tell(&self, CopyProgress { part, done, total }: CopyProgress) {
        if self.quiet {
            return;
        }
        let mut shown = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|shown| shown.part != part) {
            // The bar before goes first.
            *shown = None;
            let bar = self.screen.is_terminal().then(|| self.screen.progress(described_part(part), total));
            *shown = Some(Part { part, bar, lines: 0 });
        }
        let Some(shown) = shown.as_mut() else { return };
        if let Some(bar) = &shown.bar {
            return bar.at(done);
        }
        let lines = (done * LINES_OF_PART).checked_div(total).unwrap_or_default();
        if lines > shown.lines {
            shown.lines = lines;
            self.screen.line(&format!("{}: {done} of {total}", described_part(part)));
        }
    }
}

const fn described_part(part: CopyPart) -> &'static str {
    match part {
        CopyPart::Compare => "comparing journals",
        CopyPart::Services => "services and groups",
        CopyPart::Configurations => "history of configurations",
        CopyPart::Entries => "journal entries",
        CopyPart::Replies => "answers to requests",
        CopyPart::Verify => "verifying the journal",
    }
}
