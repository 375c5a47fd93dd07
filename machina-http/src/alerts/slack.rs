//! The incoming webhooks of Slack, in the part of their form that Mattermost and
//! Discord (`…/slack`) take as well: a text, and one attachment with a colour.

use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use machina_core::{Alert, AlertLevel, AlertMessage, AlertMessageKind, Notifier, Result, SlackTarget};
use serde_json::{Value, json};

use super::Fields;
use super::post::Post;

#[derive(Debug)]
pub(super) struct Slack {
    name: String,
    post: Post,
}

impl Slack {
    pub(super) fn new(name: &str, target: &SlackTarget, timeout: Duration, fields: &Fields<'_>) -> Result<Self> {
        let post = Post::new("slack", &target.url, target.ca_file.as_deref(), timeout, fields)?;
        Ok(Self { name: name.to_owned(), post })
    }
}

#[async_trait]
impl Notifier for Slack {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &str {
        "slack"
    }

    async fn notify(&self, message: &AlertMessage) -> Result<()> {
        self.post.send(payload(message).to_string().into_bytes(), HeaderMap::new()).await
    }
}

fn payload(message: &AlertMessage) -> Value {
    let text = escaped(&message.text);
    let mut attachment = json!({"color": colour(message), "fallback": text, "footer": escaped(&message.source),
        "ts": message.at.as_second()});
    match message.alerts.as_slice() {
        [] => {}
        [alert] => attachment["fields"] = fields(alert),
        alerts => {
            let mut lines: Vec<String> = alerts.iter().map(|alert| line(alert)).collect();
            if message.omitted > 0 {
                lines.push(format!("… and {} more", message.omitted));
            }
            attachment["text"] = lines.join("\n").into();
        }
    }
    json!({"text": text, "attachments": [attachment]})
}

const fn colour(message: &AlertMessage) -> &'static str {
    match (message.kind, message.level) {
        (AlertMessageKind::Resolved, _) => "#2eb886",
        (AlertMessageKind::Test, _) => "#808080",
        (_, AlertLevel::Warning) => "#daa038",
        (_, AlertLevel::Critical) => "#d9534f",
        (_, AlertLevel::Emergency) => "#8b0000",
    }
}

fn fields(alert: &Alert) -> Value {
    let field = |title: &str, value: String| json!({"title": title, "value": escaped(&value), "short": true});
    let mut fields = vec![field("Rule", alert.rule.as_str().to_owned())];
    fields.extend(alert.service.as_ref().map(|service| field("Service", service.to_string())));
    fields.extend(alert.instance.map(|instance| field("Instance", instance.to_string())));
    fields.push(field("Since", alert.since.to_string()));
    Value::Array(fields)
}

fn line(alert: &Alert) -> String {
    let word = if alert.resolved_at.is_some() { "resolved" } else { alert.level.as_str() };
    escaped(&format!("[{word}] {}", alert.summary))
}

/// Text that commands nothing: part of it comes from others, and must neither
/// link to anything nor call anyone.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('@', "@\u{200b}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(alerts: Value, omitted: usize) -> AlertMessage {
        serde_json::from_value(json!({"id": "019ac000-0000-7000-8000-000000000000", "kind": "firing",
            "source": "m", "level": "critical", "text": "<!channel> @here & all", "at": "2026-01-01T00:00:00Z",
            "alerts": alerts, "omitted": omitted}))
        .unwrap()
    }

    fn alert(service: &str) -> Value {
        json!({"id": "019ac000-0000-7000-8000-000000000001", "rule": "service_down", "level": "critical",
            "service": service, "summary": format!("`{service}` is down: <http://a|b>"),
            "since": "2026-01-01T00:00:00Z", "fired_at": "2026-01-01T00:01:00Z"})
    }

    #[test]
    fn what_others_say_calls_nobody() {
        let payload = payload(&message(json!([alert("a")]), 0));
        assert_eq!(payload["text"], "&lt;!channel&gt; @\u{200b}here &amp; all");
        let titles: Vec<_> = payload["attachments"][0]["fields"].as_array().unwrap().iter().collect();
        assert_eq!(titles[1], &json!({"title": "Service", "value": "a", "short": true}));
        assert_eq!(payload["attachments"][0]["ts"], 1_767_225_600);
    }

    #[test]
    fn many_alerts_are_lines() {
        let payload = payload(&message(json!([alert("a"), alert("b")]), 3));
        let text = payload["attachments"][0]["text"].as_str().unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "[critical] `b` is down: &lt;http://a|b&gt;");
        assert_eq!(lines[2], "… and 3 more");
    }
}
