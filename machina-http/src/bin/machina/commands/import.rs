//! `import`.

use machina_core::{Result, ServiceSpec};
use machina_mcp::formats::{Difference, Severity, diff};
use serde_json::json;

use crate::App;
use crate::cli;
use crate::declare::{self, File};
use crate::exit::Ended;
use crate::reach::Reached;

pub(crate) async fn run(app: &App, args: &cli::Import, files: Vec<File>, reached: &Reached) -> Result<Ended> {
    let left_out = if app.output.is_json() {
        files.iter().any(|file| file.import.errors().next().is_some())
    } else {
        declare::remarks(app, &files, Severity::Info)
    };
    let notes: Vec<_> = files
        .iter()
        .map(|file| json!({"path": file.path, "format": file.import.format, "notes": file.import.notes}))
        .collect();
    let specs = declare::services(app, files);
    let differences = diff(&present(&specs, reached).await?, &specs);
    let declared = if args.dry_run { None } else { Some(declare::declare(&*reached.registry, specs).await?) };
    let refused = declared.iter().flat_map(|declared| &declared.refused);
    let refused: Vec<_> = refused
        .map(|(name, error)| json!({"service": name, "code": error.kind(), "message": error.message()}))
        .collect();
    if app.output.is_json() {
        app.output.json(&json!({
            "files": notes,
            "differences": differences,
            "refused": refused,
            "dry_run": args.dry_run,
            "revision": declared.as_ref().map(|declared| declared.revision),
        }));
    } else {
        show(app, &differences, args.dry_run);
        for (name, error) in declared.iter().flat_map(|declared| &declared.refused) {
            app.complain(format_args!("`{name}` was not taken: {}", error.message()));
        }
    }
    Ok(if left_out || !refused.is_empty() { Ended::Partly } else { Ended::Well })
}

/// Those of `specs` that are registered already, as they are now.
async fn present(specs: &[ServiceSpec], reached: &Reached) -> Result<Vec<ServiceSpec>> {
    let mut present = Vec::new();
    for spec in specs {
        let name = spec.name.as_str();
        let known = match &reached.local {
            // Here the secrets are at hand, so that a changed one is seen.
            Some(machina) => machina.get(name).map(|view| view.service().spec.clone()),
            None => declare::current(&*reached.registry, name).await?,
        };
        present.extend(known);
    }
    Ok(present)
}

fn show(app: &App, differences: &[Difference], dry_run: bool) {
    let (mut added, mut changed, mut unchanged) = (0, 0, 0);
    for difference in differences {
        match difference {
            Difference::Added { name } => {
                added += 1;
                app.output.line(format!("+ {name}"));
            }
            Difference::Changed { name, fields } => {
                changed += 1;
                app.output.line(format!("~ {name}"));
                fields.iter().for_each(|field| app.output.line(format!("    {field}")));
            }
            Difference::Unchanged { name } => {
                unchanged += 1;
                app.output.line(format!("= {name}"));
            }
        }
    }
    app.output.line(if dry_run {
        format!("{added} to add, {changed} to change, {unchanged} unchanged; this was a dry run")
    } else {
        format!("{added} added, {changed} changed, {unchanged} unchanged")
    });
}
