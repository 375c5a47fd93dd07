//! `import`.

use machina_core::{Endpoint, Error, Result, ServiceSpec};
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
    let mut differences = diff(&present(&specs, reached).await?, &specs);
    let (revision, refused) = if args.dry_run {
        (None, if reached.local.is_none() { to_be_refused(&specs, &differences) } else { Vec::new() })
    } else {
        let declared = declare::declare(&*reached.registry, specs).await?;
        (Some(declared.revision), declared.refused)
    };
    differences.retain(|difference| refused.iter().all(|(name, _)| name != difference.name().as_str()));
    if app.output.is_json() {
        let refused = refused.iter();
        let refused =
            refused.map(|(name, error)| json!({"service": name, "code": error.kind(), "message": error.message()}));
        app.output.json(&json!({
            "files": notes,
            "differences": differences,
            "refused": refused.collect::<Vec<_>>(),
            "dry_run": args.dry_run,
            "revision": revision,
        }));
    } else {
        show(app, &differences, refused.len(), args.dry_run);
        let outcome = if args.dry_run { "will be refused" } else { "was not taken" };
        for (name, error) in &refused {
            app.complain(format_args!("`{name}` {outcome}: {}", error.message()));
        }
    }
    Ok(if left_out || !refused.is_empty() { Ended::Partly } else { Ended::Well })
}

/// Those of `specs` that a server does not take from outside, unless it was set
/// to: what a server was set to it does not tell.
fn to_be_refused(specs: &[ServiceSpec], differences: &[Difference]) -> Vec<(String, Error)> {
    let message = "a server takes no command and no placeholder from outside, unless it has \
                   access.allow_stdio_registration = true; declare it with machina serve --import FILE";
    let pairs = specs.iter().zip(differences);
    let refused = pairs.filter(|(spec, difference)| reaches_further(spec, difference));
    refused.map(|(spec, _)| (spec.name.to_string(), Error::forbidden(message))).collect()
}

/// Whether `spec` would have the server do something in its own process that it
/// does not do already.
fn reaches_further(spec: &ServiceSpec, difference: &Difference) -> bool {
    match difference {
        Difference::Added { .. } => spec.instances.iter().any(|instance| instance.endpoint.reaches_into_process()),
        Difference::Changed { fields, .. } => spec.instances.iter().enumerate().any(|(index, instance)| {
            let (whole, kind) = (format!("instances[{index}]"), instance.endpoint.kind());
            let (endpoint, command) = (format!("{whole}.{kind}"), matches!(instance.endpoint, Endpoint::Stdio(_)));
            let concerns = |field: &str| {
                field == whole
                    || field.starts_with(&endpoint)
                    || (command && (field == "env" || field.starts_with("env.")))
            };
            instance.endpoint.reaches_into_process() && fields.iter().any(|change| concerns(&change.field))
        }),
        Difference::Unchanged { .. } => false,
    }
}

/// Those of `specs` that are registered already, as they are now.
async fn present(specs: &[ServiceSpec], reached: &Reached) -> Result<Vec<ServiceSpec>> {
    let mut present = Vec::new();
    for spec in specs {
        let name = spec.name.as_str();
        let known = match &reached.local {
            // Here the secrets are at hand, so that a changed one is seen.
            Some(machina) => machina.get(name).map(|view| view.service().spec.clone()),
            None => declare::current(&*reached.registry, name).await?.map(as_from_inside),
        };
        present.extend(known);
    }
    Ok(present)
}

/// What a server says of its own accord, and an import over it does not change.
fn as_from_inside(mut spec: ServiceSpec) -> ServiceSpec {
    spec.instances.iter_mut().for_each(|instance| instance.from_outside = false);
    spec
}

fn show(app: &App, differences: &[Difference], refused: usize, dry_run: bool) {
    let (mut added, mut changed, mut unchanged) = (0, 0, 0);
    for difference in differences {
        match difference {
            Difference::Added { name } => {
                added += 1;
                app.output.line(format!("+ {name}"));
            }
            Difference::Changed { name, fields, .. } => {
                changed += 1;
                app.output.line(format!("~ {name}"));
                fields.iter().for_each(|field| app.output.line(format!("    {field}")));
            }
            Difference::Unchanged { name, .. } => {
                unchanged += 1;
                app.output.line(format!("= {name}"));
            }
        }
        let secrets = difference.not_compared().iter();
        secrets.for_each(|field| app.output.line(format!("    {field}: a secret, cannot be compared")));
    }
    let mut summary = if dry_run {
        format!("{added} to add, {changed} to change, {unchanged} unchanged")
    } else {
        format!("{added} added, {changed} changed, {unchanged} unchanged")
    };
    if refused > 0 {
        summary += &format!(", {refused} refused");
    }
    if dry_run {
        summary += "; this was a dry run";
    }
    app.output.line(summary);
}
