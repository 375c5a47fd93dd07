//! Machina in this process, with the real connectors, as a Rust program has it.

use std::sync::Arc;
use std::time::Duration;

use machina_core::{Builder, CallOptions, Config, Event, EventKind, EventStream, Machina, Next, ReasonCode, ToolCall};
use machina_mcp::client::{ClientConfig, Environment, connectors};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::wait_until;

/// A registry in memory with the real connectors.
///
/// # Panics
/// If it does not open.
pub async fn open(config: Config) -> Machina {
    open_with(config, ClientConfig::default()).await
}

/// The same with connectors of this configuration.
///
/// # Panics
/// If it does not open.
pub async fn open_with(config: Config, client: ClientConfig) -> Machina {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let environment = Environment::new(std::env::vars_os().filter_map(text));
    let connectors = connectors(client, environment).expect("the connectors can be made");
    let builder: Builder = Machina::builder().config(config).connectors(connectors);
    builder.open().await.expect("a registry in memory opens")
}

/// Waits until it is decided of every instance whether it is up, and what the
/// services of those that are up publish.
///
/// # Panics
/// With those that are undecided when `patience` is over.
pub async fn settled(machina: &Machina, patience: Duration) {
    wait_until(patience, "every instance has settled", async || {
        let view = machina.view();
        let instances = view.services().flat_map(|service| {
            let name = service.service().name().clone();
            service.instances().map(move |(_, seen)| (name.clone(), seen))
        });
        let open: Vec<_> = instances
            .filter(|(_, seen)| {
                let unlisted = seen.health.reason.code == ReasonCode::Passed && seen.definitions.is_none();
                seen.health.state.is_undecided() || unlisted
            })
            .map(|(name, seen)| format!("{name} ({})", seen.health.state.as_str()))
            .collect();
        if open.is_empty() { Ok(()) } else { Err(open.join(", ")) }
    })
    .await;
}

/// Has a fixture change its tools, again each second until that is told, and returns
/// what is told: a listener over HTTP is connected in the background.
///
/// # Panics
/// If nothing is told before `patience` is over.
pub async fn changed(machina: &Machina, service: &str, patience: Duration) -> Arc<Event> {
    const AGAIN: Duration = Duration::from_secs(1);
    let (mut events, started) = (machina.watch(), Instant::now());
    while started.elapsed() < patience {
        let change = call(service, "change_tools", json!({}));
        machina.call(&change, &CallOptions::default()).await.expect("the fixture changes its tools");
        if let Ok(event) = timeout(AGAIN, definitions_changed(&mut events)).await {
            return event;
        }
    }
    panic!("{service}: no event within {patience:?}");
}

async fn definitions_changed(events: &mut EventStream) -> Arc<Event> {
    loop {
        let Next::Event(event) = events.next().await else { panic!("fell behind") };
        if matches!(event.kind, EventKind::DefinitionsChanged { .. }) {
            return event;
        }
    }
}

/// A call of `tool` of `service` with `arguments`, which must be an object.
///
/// # Panics
/// If a name is none, or the arguments are no object.
#[must_use]
pub fn call(service: &str, tool: &str, arguments: Value) -> ToolCall {
    let call = json!({"service": service, "tool": tool, "arguments": arguments});
    serde_json::from_value(call).expect("the test makes a valid call")
}
