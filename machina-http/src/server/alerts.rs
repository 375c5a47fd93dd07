//! `/alerts`: what fires, what is over, and whether the channels work.

use machina_core::{AlertsReport, ChannelTest};
use serde::{Deserialize, Serialize};

use super::extract::{Caller, OptionalJson, Parameters};
use super::failure::{Failure, Part};

/// Which channels are tried out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertTest {
    /// The name of the channel; all of them without.
    channel: Option<String>,
}

/// What came of the test messages.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AlertTests {
    results: Vec<ChannelTest>,
}

pub(super) async fn list(Caller(caller): Caller, parameters: Parameters) -> Result<axum::Json<AlertsReport>, Failure> {
    parameters.none()?;
    Ok(axum::Json(caller.alerts()))
}

pub(super) async fn test(
    Caller(caller): Caller,
    parameters: Parameters,
    body: OptionalJson,
) -> Result<axum::Json<AlertTests>, Failure> {
    parameters.none()?;
    let AlertTest { channel } = body.typed()?;
    let results = caller.test_alerts(channel.as_deref()).await.map_err(Failure::of(Part::Record))?;
    Ok(axum::Json(AlertTests { results }))
}
