//! Alerts, and the channels that tell of them.

use serde_json::json;

use super::operation::Operation;
use super::schemas::of;

const ALERTS: &str = "Alerts";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new("get", "/api/v1/alerts", ALERTS, "list_alerts", "What fires, and what is over")
            .says("At most 1000 alerts that fire, the gravest first; `omitted` says how many more there are.")
            .answers(200, "The alerts, and how the channels are", &of("AlertsReport"), &[]),
        Operation::new("post", "/api/v1/alerts/test", ALERTS, "test_alerts", "Sends a test message")
            .says("One attempt for each channel, at once, whatever the hour. That a channel does not take the message is no error.")
            .may_take(of("AlertTest"), &json!({"channel": "mail"}))
            .answers(200, "What came of it", &of("AlertTests"), &[])
            .refuses(&[429]),
    ]
}
