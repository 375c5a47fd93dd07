//! How a Machina is opened, as JavaScript says it.

use std::collections::BTreeMap;

use machina_core::{Config, Result};
use machina_http::assemble::AssembleOptions;
use machina_mcp::client::ClientConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::question::{read, typed};

/// `{"config": {…}, "environment": {…}, "monitor": true}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default)]
    config: Map<String, Value>,
    environment: BTreeMap<String, String>,
    monitor: bool,
}

/// Reads how to open it. In the configuration, `stdio` and `http` are the
/// connectors' and the rest the core's.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field.
pub(crate) fn opening(json: &str) -> Result<AssembleOptions> {
    let Options { mut config, environment, monitor } = read(json)?;
    let parts = ["stdio", "http"].map(|part| Some((part.to_owned(), config.shift_remove(part)?)));
    let client: ClientConfig = typed(Value::Object(parts.into_iter().flatten().collect()))?;
    let config: Config = typed(Value::Object(config))?;
    Ok(AssembleOptions { config, client, watch: monitor, ..AssembleOptions::new(environment) })
}
