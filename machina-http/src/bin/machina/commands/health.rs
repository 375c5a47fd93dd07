//! `health`: what a running Machina knows, or on a store, what a check now says.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use machina_core::{Machina, Query, Result, ServiceReport, Status, Timestamp};
use serde_json::json;

use super::services::{instances, milliseconds, sentence};
use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::output::short;
use crate::reach::Reached;

/// How many services are checked at once; of these, the configuration limits
/// how many processes start at once.
const CHECKS_MAX: usize = 64;

/// How often a watcher looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(app: &App, args: &cli::Health, reached: &Reached) -> Result<Ended> {
    if args.watch {
        return watch(app, args, reached).await;
    }
    if let Some(machina) = &reached.local {
        check(app, machina, args.name.as_deref()).await?;
    }
    match &args.name {
        Some(name) => one(app, name, reached).await,
        None => all(app, reached).await,
    }
}

/// Checks the services of a store that nobody watches.
async fn check(app: &App, machina: &Machina, name: Option<&str>) -> Result<()> {
    let view = machina.view();
    let names: Vec<String> = match name {
        Some(name) => vec![name.to_owned()],
        None => view.services().map(|service| service.service().name().to_string()).collect(),
    };
    let counter = app.screen.counter("checking", names.len());
    let mut checks = stream::iter(&names).map(|name| machina.check(name)).buffer_unordered(CHECKS_MAX);
    while let Some(checked) = checks.next().await {
        checked?;
        counter.one_more();
    }
    Ok(())
}

/// Whether a service gives no reason for alarm: it is healthy, or not in use.
fn is_fine(status: Status) -> bool {
    matches!(status, Status::Healthy | Status::Disabled | Status::Maintenance)
}

async fn one(app: &App, name: &str, reached: &Reached) -> Result<Ended> {
    let health = reached.registry.health(name).await?;
    let ended = Ended::well_if(is_fine(health.status));
    if app.output.is_json() {
        app.output.json(&health);
        return Ok(ended);
    }
    app.output.line(format!("{}: {}", health.service, sentence(&health.health)));
    app.output.line("");
    instances(app, &health);
    for instance in health.instances.iter().filter(|instance| !instance.stderr_tail.trim().is_empty()) {
        app.output.line(format!("\nstderr of {}:", instance.location));
        instance.stderr_tail.lines().for_each(|line| app.output.line(format!("  | {line}")));
    }
    Ok(ended)
}

async fn all(app: &App, reached: &Reached) -> Result<Ended> {
    let services = reached.services(&Query::default()).await?;
    show(app, &services);
    Ok(Ended::well_if(services.iter().all(|service| is_fine(service.status))))
}

fn show(app: &App, services: &[ServiceReport]) {
    if app.output.is_json() {
        let health = |service: &ServiceReport| json!({"service": service.name(), "status": service.status, "health": service.health});
        return app.output.json(&services.iter().map(health).collect::<Vec<_>>());
    }
    let mut columns = app.output.columns(&["SERVICE", "STATUS", "#MS", "#UP %", "#FOR", "REASON"]);
    for service in services {
        let health = &service.health;
        columns.row([
            service.name().to_owned(),
            service.status.as_str().to_owned(),
            milliseconds(health.response_time_ms),
            health.uptime_percentage.map(|up| format!("{up:.1}")).unwrap_or_default(),
            ago(health.since),
            short(&health.reason.message, 200),
        ]);
    }
    app.output.table(columns);
}

/// How long ago something was, in one number.
fn ago(since: Timestamp) -> String {
    let seconds = machina_core::now().duration_since(since).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Shows what is, and then every change, until interrupted.
async fn watch(app: &App, args: &cli::Health, reached: &Reached) -> Result<Ended> {
    let query = Query { name: args.name.clone(), ..Query::default() };
    let mut known: BTreeMap<String, (Status, String)> = BTreeMap::new();
    if let Some(name) = &args.name {
        reached.registry.get(name).await?;
    }
    while !app.output.is_closed() {
        let services = reached.services(&query).await?;
        let mut seen = BTreeMap::new();
        for service in &services {
            let now = (service.status, service.health.reason.message.clone());
            if known.get(service.name()) != Some(&now) {
                changed(app, service);
            }
            seen.insert(service.name().to_owned(), now);
        }
        known = seen;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(Ended::Well)
}

fn changed(app: &App, service: &ServiceReport) {
    let at = machina_core::now();
    if app.output.is_json() {
        let change = json!({"at": at, "service": service.name(), "status": service.status, "health": service.health});
        return app.output.json_line(&change);
    }
    let reason = short(&service.health.reason.message, 200);
    let line = format!("{}  {:<10}  {}  {reason}", at.strftime("%H:%M:%SZ"), service.status.as_str(), service.name());
    app.output.line(line.trim_end());
}
