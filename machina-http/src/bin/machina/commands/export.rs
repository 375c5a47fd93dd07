//! `export`.

use machina_core::{Error, Query, Result, ServiceSpec};
use machina_mcp::formats::{self, Gateway, Severity};
use serde_json::json;

use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::reach::Reached;

pub(crate) async fn run(app: &App, args: &cli::Export, reached: &Reached) -> Result<Ended> {
    let export = if args.gateway {
        formats::export_gateway(args.client, &gateway(app, reached)?)?
    } else {
        let reports = reached.services(&Query::default()).await?;
        // What a reader gets is masked: an export needs no secret, only its name.
        let spec = |report| ServiceSpec::from_value(serde_json::to_value(report).unwrap_or_default());
        let specs: Vec<_> = reports.iter().map(spec).collect::<Result<_>>()?;
        formats::export(&specs, args.client)?
    };
    let left_out = export.notes.iter().any(|note| note.severity == Severity::Error);
    if app.output.is_json() {
        app.output.json(&json!({"client": args.client, "text": export.text, "notes": export.notes}));
    } else {
        export.notes.iter().for_each(|note| app.remark(note));
        app.output.text(&export.text);
    }
    Ok(if left_out { Ended::Partly } else { Ended::Well })
}

/// How a host reaches the Machina that was asked.
fn gateway(app: &App, reached: &Reached) -> Result<Gateway> {
    if let Some(url) = &reached.url {
        return Ok(Gateway::Http { url: format!("{}/mcp", url.trim_end_matches('/')) });
    }
    let program = std::env::current_exe().map_err(|error| Error::internal("has no path").caused_by(error))?;
    let mut args = vec!["mcp".to_owned()];
    for (flag, value) in [("--store", app.store_address()), ("--config", app.config_path())] {
        args.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
    }
    Ok(Gateway::Stdio { command: program.to_string_lossy().into_owned(), args })
}
