//! `explain`.

use machina_core::{ErrorKind, Explanation, Result};

use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::output::short;
use crate::reach::Reached;

pub(crate) async fn run(app: &App, args: &cli::Explain, reached: &Reached) -> Result<Ended> {
    let explanation = ask(&args.target, reached).await?;
    if app.output.is_json() {
        app.output.json(&explanation);
        return Ok(Ended::Well);
    }
    show(app, &explanation);
    Ok(Ended::Well)
}

/// The name of a service may itself hold a `/`: the whole counts first.
async fn ask(target: &str, reached: &Reached) -> Result<Explanation> {
    let whole = reached.router.explain(target, None).await;
    match (whole, target.rsplit_once('/')) {
        (Err(error), Some((service, tool))) if error.kind() == ErrorKind::NotFound => {
            reached.router.explain(service, Some(tool)).await
        }
        (whole, _) => whole,
    }
}

fn show(app: &App, explanation: &Explanation) {
    let output = &app.output;
    let tool = explanation.tool.as_deref().map(|tool| format!("/{tool}")).unwrap_or_default();
    output.line(format!(
        "{}{tool}: {}, balanced by {}",
        explanation.service,
        explanation.admin_state.as_str(),
        word(&explanation.balancer)
    ));
    if explanation.tool.is_some() {
        let may = if explanation.repeatable { "may be repeated" } else { "is not repeated" };
        output.line(format!("A call whose outcome is unknown {may}: {}.", explanation.repeatable_reason));
    }
    let mut columns = output.columns(&["", "INSTANCE", "STANDING", "#MS", "#BUSY", "#WEIGHT", "WHY"]);
    for candidate in &explanation.candidates {
        columns.row([
            if candidate.picked { "→" } else { "" }.to_owned(),
            candidate.location.clone(),
            word(&candidate.standing),
            format!("{:.0}", candidate.latency_ms),
            candidate.in_flight.to_string(),
            candidate.weight.to_string(),
            short(&candidate.reason, 200),
        ]);
    }
    output.line("");
    output.table(columns);
    if !explanation.candidates.iter().any(|candidate| candidate.picked) {
        output.line("No instance would get the call.");
    }
}

/// The word of an enumeration in JSON.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
