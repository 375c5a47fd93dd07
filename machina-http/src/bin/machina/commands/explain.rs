//! `explain`.

use machina_core::{Candidacy, ErrorKind, Explanation, Locality, Result};

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
    circumstances(app, explanation);
    let header = ["", "INSTANCE", "STANDING", "BREAKER", "#COST", "#MS", "#BUSY", "#WEIGHT"];
    let mut columns = output.columns(&header);
    for candidate in &explanation.candidates {
        let mark = match (candidate.picked, candidate.eligible) {
            (true, _) => "→",
            (false, true) => "·",
            (false, false) => "",
        };
        columns.row([
            mark.to_owned(),
            candidate.location.clone(),
            word(&candidate.standing),
            word(&candidate.breaker),
            format!("{:.3}", candidate.cost),
            format!("{:.0}", candidate.latency_ms),
            format!("{}/{}", candidate.in_flight, candidate.in_flight_max),
            if candidate.share < 1.0 {
                format!("{} × {:.0} %", candidate.weight, candidate.share * 100.0)
            } else {
                candidate.weight.to_string()
            },
        ]);
    }
    output.line("");
    output.table(columns);
    let not_well = explanation.candidates.iter().filter(|candidate| candidate.reason != candidate.health.as_str());
    for candidate in not_well {
        output.line(format!("{}: {}", candidate.location, why(candidate)));
    }
    if !explanation.candidates.iter().any(|candidate| candidate.picked) {
        output.line("No instance would get the call now.");
    }
}

/// What holds for the call, wherever it goes.
fn circumstances(app: &App, explanation: &Explanation) {
    let output = &app.output;
    output.line(format!(
        "It may take {} ms, has up to {} attempts where repeating is safe, and the service may repeat {} calls now.",
        explanation.timeout_ms, explanation.attempts_max, explanation.retries_left
    ));
    if let Some(delay) = explanation.hedge_delay_ms {
        output.line(format!("After {delay} ms it is also sent to a second instance."));
    }
    if let Some(argument) = &explanation.affinity_argument {
        output.line(format!("Calls with the same `{argument}` go to the same instance."));
    }
    if explanation.session_affinity {
        output.line("Calls of the same session of a host go to the same instance.");
    }
    if explanation.queue_length > 0 {
        let (length, most) = (explanation.queue_length, explanation.queue_max);
        output.line(format!("{length} calls wait for an instance with room; {most} may."));
    }
    if explanation.locality != Locality::Anywhere {
        output.line(format!(
            "Only instances in the same {} are used, as enough of them are up.",
            word(&explanation.locality)
        ));
    }
    if explanation.panic {
        output.line("Too few instances are up: all are used that are not certainly down.");
    }
}

fn why(candidate: &Candidacy) -> String {
    let until = [("ejected", candidate.ejected_for_ms), ("left alone", candidate.held_for_ms)];
    let until = until.into_iter().filter_map(|(what, millis)| Some(format!(" ({what} for {} ms)", millis?)));
    format!("{}{}", short(&candidate.reason, 200), until.collect::<String>())
}

/// The word of an enumeration in JSON.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
