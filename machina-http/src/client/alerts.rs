//! Alerts of a registry in another process.

use std::time::Duration;

use machina_core::{AlertsReport, ChannelTest, Result};
use serde::Deserialize;
use serde_json::json;

use super::Client;

/// How long channels may take to be tried out: longer than `alerts.delivery_timeout`
/// may be.
const TEST_TIMEOUT: Duration = Duration::from_secs(70);

#[derive(Deserialize)]
struct Tests {
    results: Vec<ChannelTest>,
}

impl Client {
    /// The alerts that fire, those that are over, and how the channels are.
    ///
    /// # Errors
    /// Whatever the server says, or [`Unreachable`](machina_core::ErrorKind::Unreachable).
    pub async fn alerts(&self) -> Result<AlertsReport> {
        self.read(&["alerts"], &[]).await
    }

    /// Sends a test message to the channel of this name, or to all of them, and
    /// says what came of each.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) when there is no such channel;
    /// whatever else the server says.
    pub async fn test_alerts(&self, channel: Option<&str>) -> Result<Vec<ChannelTest>> {
        let body = channel.map_or_else(|| json!({}), |channel| json!({ "channel": channel }));
        let Tests { results } = self.post(&["alerts", "test"], &body, Some(TEST_TIMEOUT)).await?;
        Ok(results)
    }
}
