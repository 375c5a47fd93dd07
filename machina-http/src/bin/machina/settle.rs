//! The first minutes of a server: shows how its services come up, one after the
//! other, until each is decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use machina_core::{Error, InstanceHealth, Machina, Result, ServiceView, Status};
use serde_json::json;
use tokio::time::Instant;

use crate::App;
use crate::output::short;
use crate::screen::Bar;

/// How often the services are looked at; a look costs microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many lines of a failing server's stderr are shown.
const STDERR_LINES: usize = 12;

/// A service that comes up.
#[derive(Debug)]
struct Coming {
    /// On a terminal, where it stands until all have settled.
    bar: Option<Bar>,
    settled: bool,
}

/// Shows the services until all have settled.
pub(crate) async fn show(app: &App, machina: &Machina) {
    let begun = Instant::now();
    let mut coming: BTreeMap<String, Coming> = BTreeMap::new();
    loop {
        let view = machina.view();
        for service in view.services() {
            let name = service.service().name().to_string();
            let settled = service.is_settled(service.start_policy());
            let known = coming.entry(name).or_insert_with_key(|name| Coming {
                bar: (!settled && app.screen.is_terminal()).then(|| app.screen.spinner(name.clone())),
                settled: false,
            });
            if settled && !known.settled {
                known.settled = true;
                tell_settled(app, service, known.bar.as_ref(), begun);
            }
        }
        coming.retain(|name, _| view.get(name).is_some());
        if coming.values().all(|service| service.settled) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    drop(coming);
    summarise(app, machina, begun).await;
}

/// Why the service is as it is, in a few words.
fn reason(service: &ServiceView) -> String {
    let reasons = service.instances().map(|(_, seen)| seen.health.reason.message.as_str());
    let mut reasons = reasons.filter(|message| !message.is_empty());
    match (service.status(), reasons.next()) {
        (Status::Healthy, _) | (_, None) => String::new(),
        (_, Some(reason)) => short(reason, 300),
    }
}

fn tell_settled(app: &App, service: &ServiceView, bar: Option<&Bar>, begun: Instant) {
    let (name, status, tools) = (service.service().name(), service.status(), service.tools().len());
    let seconds = begun.elapsed().as_secs_f64();
    if app.output.is_json() {
        return app.output.json_line(&json!({
            "event": "settled", "service": name, "status": status, "tools": tools,
            "reason": reason(service), "seconds": seconds,
        }));
    }
    let what = match service.status() {
        Status::Healthy => counted(tools, "tool"),
        Status::Unknown if tools > 0 => format!("not started; {} known", counted(tools, "tool")),
        _ => reason(service),
    };
    let line = format!("{:<9}  {name}  {what}  ({seconds:.1} s)", status.as_str());
    match bar {
        Some(bar) => bar.done(line),
        None if app.output.is_terminal() => {}
        None => app.output.line(line),
    }
}

async fn summarise(app: &App, machina: &Machina, begun: Instant) {
    let view = machina.view();
    let services: Vec<&Arc<ServiceView>> = view.services().collect();
    let healthy = services.iter().filter(|service| service.status() == Status::Healthy).count();
    let tools: usize = services.iter().map(|service| service.tools().len()).sum();
    let seconds = begun.elapsed().as_secs_f64();
    if app.output.is_json() {
        return app.output.json_line(&json!({
            "event": "all_settled", "services": services.len(), "healthy": healthy, "tools": tools, "seconds": seconds,
        }));
    }
    if services.is_empty() {
        return app.output.line("There are no services yet. Declare some at the start: machina serve --import FILE");
    }
    if app.output.is_terminal() {
        table(app, &services);
    }
    for service in services.iter().filter(|service| matches!(service.status(), Status::Unhealthy | Status::Degraded)) {
        if let Err(error) = tell_failing(app, machina, service).await {
            tracing::debug!(%error, "the service went away");
        }
    }
    app.output.line(format!(
        "\n{healthy} of {} healthy, with {} in all. Settled in {seconds:.1} s.",
        counted(services.len(), "service"),
        counted(tools, "tool"),
    ));
}

fn table(app: &App, services: &[&Arc<ServiceView>]) {
    let mut columns = app.output.columns(&["SERVICE", "STATUS", "#TOOLS", "DETAIL"]);
    for service in services {
        let (name, status) = (service.service().name().to_string(), service.status());
        columns.row([name, status.as_str().to_owned(), service.tools().len().to_string(), reason(service)]);
    }
    app.output.line("");
    app.output.table(columns);
}

/// The whole reason, and the end of what the process wrote to stderr.
async fn tell_failing(app: &App, machina: &Machina, service: &ServiceView) -> Result<(), Error> {
    let health = machina.health(service.service().name().as_str()).await?;
    let worth_telling = |instance: &&InstanceHealth| !matches!(instance.status, Status::Healthy | Status::Disabled);
    for instance in health.instances.iter().filter(worth_telling) {
        app.output.line(format!("\n{} is {}: {}", health.service, instance.status.as_str(), instance.location));
        app.output.line(format!("  {}", instance.health.reason.message));
        let lines: Vec<&str> = instance.stderr_tail.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(STDERR_LINES)..] {
            app.output.line(format!("  | {line}"));
        }
    }
    Ok(())
}

/// A number of things, in words.
fn counted(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}
