//! `admin`, `pin` and `remove`: what an operator says about a service.

use machina_core::{Mutation, Pinning, Result, Revision, ServiceName};
use serde_json::json;

use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::reach::Reached;

pub(crate) async fn set(app: &App, args: &cli::Admin, reached: &Reached) -> Result<Ended> {
    let (name, state) = (ServiceName::new(&args.name)?, args.state);
    let mutation = Mutation::SetAdminState { name, instance: args.instance, admin_state: state, reason: None };
    let revision = apply(reached, mutation).await?;
    if app.output.is_json() {
        let said = json!({"service": args.name, "instance": args.instance, "admin_state": state, "revision": revision});
        app.output.json(&said);
        return Ok(Ended::Well);
    }
    match args.instance {
        Some(instance) => app.output.line(format!("{} {instance}: {}", args.name, state.as_str())),
        None => app.output.line(format!("{}: {}", args.name, state.as_str())),
    }
    Ok(Ended::Well)
}

pub(crate) async fn pin(app: &App, args: &cli::Pin, reached: &Reached) -> Result<Ended> {
    let pinning = match (args.strict, args.report) {
        (true, _) => Some(Pinning::Strict),
        (_, true) => Some(Pinning::Report),
        _ => None,
    };
    let mutation = Mutation::PinTools { name: ServiceName::new(&args.name)?, pinning };
    let applied = reached.registry.apply(vec![mutation]).await?;
    let policy = applied.services.first().and_then(|service| service.declared.get("routing_policy")).cloned();
    let policy = policy.unwrap_or_default();
    let pins = policy["pins"].as_object().map_or(0, serde_json::Map::len);
    let strict = policy["pinning"] == "strict";
    if app.output.is_json() {
        app.output.json(&json!({"service": args.name, "pinned": pins, "strict": strict, "revision": applied.revision}));
        return Ok(Ended::Well);
    }
    let rule = if strict { "any other is not offered" } else { "any other is reported" };
    app.output.line(format!("{}: {pins} tools pinned; {rule}", args.name));
    Ok(Ended::Well)
}

pub(crate) async fn remove(app: &App, args: &cli::Remove, reached: &Reached) -> Result<Ended> {
    let mutation = Mutation::Deregister { name: ServiceName::new(&args.name)?, expected: None };
    let revision = apply(reached, mutation).await?;
    if app.output.is_json() {
        app.output.json(&json!({"service": args.name, "removed": true, "revision": revision}));
    } else {
        app.output.line(format!("- {}", args.name));
    }
    Ok(Ended::Well)
}

async fn apply(reached: &Reached, mutation: Mutation) -> Result<Revision> {
    Ok(reached.registry.apply(vec![mutation]).await?.revision)
}
