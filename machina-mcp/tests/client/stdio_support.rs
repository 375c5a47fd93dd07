//! A child that behaves as badly as a test wants, and a connector to start it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use machina_core::{CallContext, Connector, Era, Instance, Reach, Result, Session, StdioEndpoint, Target};
use machina_mcp::client::{Environment, StdioConfig, StdioConnector};
use serde_json::{Map, Value};
use tokio::time::sleep;

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client/server.py");

#[allow(clippy::disallowed_methods, reason = "a test is a program of its own")]
pub(crate) fn environment() -> Environment {
    Environment::new(std::env::vars())
}

pub(crate) fn config() -> StdioConfig {
    StdioConfig {
        discover_timeout: Duration::from_millis(1_000),
        stop_after_eof: Duration::from_millis(300),
        stop_after_term: Duration::from_millis(300),
        write_timeout: Duration::from_millis(700),
        ..StdioConfig::default()
    }
}

pub(crate) fn endpoint(args: &[&str]) -> StdioEndpoint {
    StdioEndpoint::new("python3", std::iter::once("-u").chain([SERVER]).chain(args.iter().copied()))
}

pub(crate) fn target(endpoint: StdioEndpoint, era: Option<Era>) -> Target {
    Target {
        service: "fixture".parse().unwrap(),
        instance: Instance::new(endpoint),
        env: BTreeMap::new(),
        era,
        timeout: Duration::from_secs(20),
        reach: Reach::inside(),
    }
}

pub(crate) async fn connect_to(endpoint: StdioEndpoint, era: Option<Era>) -> Result<Arc<dyn Session>> {
    StdioConnector::new(config(), environment()).connect(&target(endpoint, era)).await
}

pub(crate) async fn connect(args: &[&str]) -> Arc<dyn Session> {
    connect_to(endpoint(args), Some(Era::Legacy)).await.unwrap()
}

pub(crate) fn within() -> CallContext {
    CallContext::within(Duration::from_secs(10))
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub(crate) async fn call(session: &Arc<dyn Session>, tool: &str, arguments: Value) -> Result<String> {
    Ok(session.call(tool, &object(arguments), &within()).await?.text())
}

pub(crate) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

pub(crate) fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

pub(crate) async fn gone(pid: u32) -> bool {
    for _ in 0..300 {
        if !runs(pid) {
            return true;
        }
        sleep(Duration::from_millis(10)).await;
    }
    false
}
