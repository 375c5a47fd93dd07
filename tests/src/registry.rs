//! Machina in this process, with the real connectors, as a Rust program has it.

use std::time::Duration;

use machina_core::{Builder, Config, Machina, ReasonCode, ToolCall};
use machina_mcp::client::{ClientConfig, Environment, connectors};
use serde_json::Value;

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

/// A call of `tool` of `service` with `arguments`, which must be an object.
///
/// # Panics
/// If a name is none, or the arguments are no object.
#[must_use]
pub fn call(service: &str, tool: &str, arguments: Value) -> ToolCall {
    let call = serde_json::json!({"service": service, "tool": tool, "arguments": arguments});
    serde_json::from_value(call).expect("the test makes a valid call")
}
