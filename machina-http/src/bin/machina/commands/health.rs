//! `health`: what a running Machina knows, or on a store, what a check now says.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use machina_core::{ErrorKind, Machina, Query, Result, ServiceReport, Status, Timestamp};
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

/// What a service was when it was last looked at: its status, why, and how many of
/// its instances were how.
type Known = BTreeMap<String, (Status, String, String)>;

/// Shows what is, and then what is another at each look, until interrupted. A
/// server that does not answer is asked again, and that is said once.
async fn watch(app: &App, args: &cli::Health, reached: &Reached) -> Result<Ended> {
    let query = Query { name: args.name.clone(), ..Query::default() };
    if let Some(name) = &args.name {
        reached.registry.get(name).await?;
    }
    let mut known = compared(app, &Known::new(), &reached.services(&query).await?);
    let mut silent = false;
    while !app.output.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
        match reached.services(&query).await {
            Ok(services) => {
                if std::mem::take(&mut silent) {
                    app.screen.line("it answers again");
                }
                known = compared(app, &known, &services);
            }
            Err(error) if reached.local.is_none() && is_passing(error.kind()) => {
                if !std::mem::replace(&mut silent, true) {
                    app.complain(format_args!("{}; asking on", error.message()));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Ended::Well)
}

/// Whether a server that fails so may answer the next time.
fn is_passing(kind: ErrorKind) -> bool {
    use ErrorKind::{Lost, Overloaded, Timeout, Unavailable, Unreachable};
    matches!(kind, Unreachable | Lost | Timeout | Unavailable | Overloaded)
}

/// Shows what is another than it was `known` to be, and returns what is.
fn compared(app: &App, known: &Known, services: &[ServiceReport]) -> Known {
    let mut seen = Known::new();
    for service in services {
        let now = (service.status, service.health.reason.message.clone(), of_instances(service));
        if known.get(service.name()) != Some(&now) {
            changed(app, service);
        }
        seen.insert(service.name().to_owned(), now);
    }
    known.keys().filter(|name| !seen.contains_key(*name)).for_each(|name| removed(app, name));
    seen
}

fn removed(app: &App, name: &str) {
    let at = machina_core::now();
    if app.output.is_json() {
        return app.output.json_line(&json!({"at": at, "service": name, "removed": true}));
    }
    app.output.line(format!("{}  {:<10}  {name}", at.strftime("%H:%M:%SZ"), "removed"));
}

fn changed(app: &App, service: &ServiceReport) {
    let at = machina_core::now();
    if app.output.is_json() {
        let change = json!({"at": at, "service": service.name(), "status": service.status, "health": service.health});
        return app.output.json_line(&change);
    }
    let (reason, parts) = (short(&service.health.reason.message, 200), of_instances(service));
    let (at, status) = (at.strftime("%H:%M:%SZ"), service.status.as_str());
    app.output.line(format!("{at}  {status:<10}  {}  {parts}  {reason}", service.name()).trim_end());
}

/// How many instances of a service with several are in which state.
fn of_instances(service: &ServiceReport) -> String {
    let instances = service.declared.get("instances").and_then(serde_json::Value::as_array);
    let Some(instances) = instances.filter(|instances| instances.len() > 1) else { return String::new() };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in instances {
        *counts.entry(instance["health"]["state"].as_str().unwrap_or("unknown")).or_default() += 1;
    }
    counts.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}
