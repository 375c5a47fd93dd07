//! `registry sync`.

use machina_core::Result;
use machina_mcp::registry::{self, SyncOptions, SyncOutcome, SyncReport, Synced};
use serde_json::json;

use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::reach::Reached;

pub(crate) async fn sync(app: &App, args: &cli::Sync, reached: &Reached) -> Result<Ended> {
    let options = SyncOptions {
        url: args.from.clone(),
        prefix: args.prefix.clone(),
        dry_run: args.dry_run,
        full: args.full,
        prune: args.prune,
        allow_commands: args.allow_commands,
    };
    let report = registry::sync(&*reached.registry, &options).await?;
    if app.output.is_json() {
        let SyncReport { source, since, entries } = &report;
        app.output.json(&json!({"source": source, "since": since, "entries": entries, "dry_run": args.dry_run}));
    } else {
        report.entries.iter().for_each(|entry| show(app, entry));
        app.output.line(summary(&report, args.dry_run));
    }
    let partly = |entry: &Synced| matches!(entry.outcome, SyncOutcome::Refused { .. } | SyncOutcome::LeftOut { .. });
    Ok(if report.entries.iter().any(partly) { Ended::Partly } else { Ended::Well })
}

fn show(app: &App, entry: &Synced) {
    let Synced { server, service, outcome, held } = entry;
    let name = if service.is_empty() { server } else { service };
    match outcome {
        SyncOutcome::Added => app.output.line(format!("+ {name}")),
        SyncOutcome::Removed => app.output.line(format!("- {name}")),
        SyncOutcome::Changed { fields } => {
            app.output.line(format!("~ {name}"));
            fields.iter().for_each(|field| app.output.line(format!("    {field}")));
        }
        SyncOutcome::Kept { why } => app.complain(format_args!("`{name}` was kept: {why}")),
        SyncOutcome::LeftOut { why } => app.complain(format_args!("`{name}` was left out: {why}")),
        SyncOutcome::Refused { why, .. } => app.complain(format_args!("`{name}` was not taken: {why}")),
        _ => {}
    }
    if *held > 0 && matches!(outcome, SyncOutcome::Added | SyncOutcome::Changed { .. }) {
        let what = if *held == 1 { "an instance is" } else { "instances are" };
        app.output
            .line(format!("    {what} disabled until you enable it: machina service {service} shows what would run"));
    }
}

fn summary(report: &SyncReport, dry_run: bool) -> String {
    let count = |fits: fn(&SyncOutcome) -> bool| report.entries.iter().filter(|entry| fits(&entry.outcome)).count();
    let added = count(|outcome| matches!(outcome, SyncOutcome::Added));
    let changed = count(|outcome| matches!(outcome, SyncOutcome::Changed { .. }));
    let removed = count(|outcome| matches!(outcome, SyncOutcome::Removed));
    let unchanged = count(|outcome| matches!(outcome, SyncOutcome::Unchanged));
    let mut text = if dry_run {
        format!("{added} to add, {changed} to change, {removed} to remove, {unchanged} unchanged")
    } else {
        format!("{added} added, {changed} changed, {removed} removed, {unchanged} unchanged")
    };
    let rest = [
        (count(|outcome| matches!(outcome, SyncOutcome::Kept { .. })), "kept"),
        (count(|outcome| matches!(outcome, SyncOutcome::LeftOut { .. })), "left out"),
        (count(|outcome| matches!(outcome, SyncOutcome::Refused { .. })), "refused"),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
        text += &format!(", {count} {what}");
    }
    if let Some(since) = report.since {
        text += &format!("; what changed since {since}");
    }
    if dry_run {
        text += "; this was a dry run";
    }
    text
}
