//! `services` and `service`.

use machina_core::{Error, HealthReport, Query, Result, ServiceHealth, ServiceReport, Status};
use serde_json::Value;

use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::output::short;
use crate::reach::Reached;

pub(crate) async fn list(app: &App, args: &cli::Services, reached: &Reached) -> Result<Ended> {
    let services = reached.services(&query(args)?).await?;
    if app.output.is_json() {
        app.output.json(&services);
        return Ok(Ended::Well);
    }
    if services.is_empty() {
        app.output.line(match (args.filter.is_empty(), &reached.url) {
            (false, _) => "No service matches.",
            (true, None) => "There are no services yet. Declare some: machina import FILE",
            // A server takes no commands from outside.
            (true, Some(_)) => "There are no services yet. Declare some at the start: machina serve --import FILE",
        });
        return Ok(Ended::Well);
    }
    let mut columns = app.output.columns(&["SERVICE", "STATUS", "#TOOLS", "#MS", "DETAIL"]);
    for service in &services {
        columns.row([
            service.name().to_owned(),
            service.status.as_str().to_owned(),
            service.tool_count.to_string(),
            milliseconds(service.health.response_time_ms),
            detail(service),
        ]);
    }
    app.output.table(columns);
    Ok(Ended::Well)
}

fn query(args: &cli::Services) -> Result<Query> {
    let mut pairs = Vec::new();
    for filter in &args.filter {
        let pair = filter.split_once('=');
        pairs.push(pair.ok_or_else(|| Error::invalid_field("--filter", "must be FIELD=VALUE, such as tags=clock"))?);
    }
    pairs.extend(args.order.as_deref().map(|order| ("order", order)));
    Query::from_pairs(pairs)
}

/// Why a service is as it is; what it is for, where all is well.
fn detail(service: &ServiceReport) -> String {
    let reason = &service.health.reason.message;
    let text = |name: &str| service.declared.get(name).and_then(Value::as_str).unwrap_or_default();
    match (reason.as_str(), text("description"), service.status) {
        ("", "", _) | ("", _, Status::Disabled | Status::Maintenance) => text("category").to_owned(),
        ("", description, _) => short(description, 80),
        (reason, _, _) => short(reason, 200),
    }
}

pub(crate) fn milliseconds(time: Option<f64>) -> String {
    time.map(|time| format!("{time:.0}")).unwrap_or_default()
}

pub(crate) async fn one(app: &App, args: &cli::Service, reached: &Reached) -> Result<Ended> {
    let service = reached.registry.get(&args.name).await?;
    if app.output.is_json() {
        app.output.json(&service);
        return Ok(Ended::Well);
    }
    let health = reached.registry.health(&args.name).await?;
    let mut columns = app.output.columns(&["FIELD", "VALUE"]);
    columns.row(["name".to_owned(), service.name().to_owned()]);
    columns.row(["status".to_owned(), service.status.as_str().to_owned()]);
    columns.row(["health".to_owned(), sentence(&service.health)]);
    columns.row(["tools".to_owned(), service.tool_count.to_string()]);
    for (name, value) in &service.declared {
        if !matches!(name.as_str(), "name" | "instances" | "enabled") {
            columns.row([name.clone(), plain(value)]);
        }
    }
    columns.row(["id".to_owned(), service.id.to_string()]);
    columns.row(["revision".to_owned(), service.revision.to_string()]);
    columns.row(["created_at".to_owned(), service.created_at.to_string()]);
    columns.row(["updated_at".to_owned(), format!("{} by {}", service.updated_at, service.updated_by)]);
    app.output.table(columns);
    app.output.line("");
    instances(app, &health);
    Ok(Ended::Well)
}

/// A table of the instances of a service.
pub(crate) fn instances(app: &App, health: &ServiceHealth) {
    let mut columns = app.output.columns(&["INSTANCE", "STATUS", "#MS", "#UP %", "PROTOCOL", "DETAIL"]);
    for instance in &health.instances {
        let reason = &instance.health.reason.message;
        let uptime = instance.health.uptime_percentage;
        columns.row([
            instance.location.clone(),
            instance.status.as_str().to_owned(),
            milliseconds(instance.health.response_time_ms),
            uptime.map(|up| format!("{up:.1}")).unwrap_or_default(),
            instance.protocol_version.clone().unwrap_or_default(),
            short(reason, 200),
        ]);
    }
    app.output.table(columns);
}

/// The state of a service in one line.
pub(crate) fn sentence(health: &HealthReport) -> String {
    let since = health.since.strftime("%Y-%m-%d %H:%M:%SZ");
    let state = format!("{}{}", health.state.as_str(), if health.flapping { ", flapping," } else { "" });
    match health.reason.message.as_str() {
        "" => format!("{state} since {since}"),
        reason => format!("{state} since {since}: {reason}"),
    }
}

/// A value as people write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    }
}
