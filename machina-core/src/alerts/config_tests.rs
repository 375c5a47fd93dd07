//! What is taken, and what is refused under which name.

use serde_json::json;

use super::*;

fn wrong(config: Value) -> Vec<String> {
    let config: AlertsConfig = serde_json::from_value(config).unwrap();
    let mut problems = Vec::new();
    config.check(&mut problems);
    problems.into_iter().map(|problem| problem.field).collect()
}

#[test]
fn the_defaults_are_valid_and_read_back() {
    assert_eq!(wrong(json!({})), Vec::<String>::new());
    let config = AlertsConfig::default();
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!((&json["down_after"], &json["rules"][0]), (&json!("1m"), &json!("service_down")));
    assert_eq!(serde_json::from_value::<AlertsConfig>(json).unwrap(), config);
}

#[test]
fn every_number_out_of_range_is_named() {
    let fields = wrong(json!({
        "source": "x".repeat(101), "down_after": "25h", "critical_after": "10m", "emergency_after": "5m",
        "definition_window": "0s", "reminder_interval": "59s", "delivery_timeout": "2m", "attempts_max": 0,
        "messages_per_minute_max": 0, "firing_max": 0, "recent_max": 0,
    }));
    let expected = [
        "down_after",
        "emergency_after",
        "definition_window",
        "reminder_interval",
        "delivery_timeout",
        "attempts_max",
        "messages_per_minute_max",
        "firing_max",
        "recent_max",
        "source",
    ];
    assert_eq!(fields, expected.map(|name| format!("alerts.{name}")));
}

#[test]
fn every_wrong_field_of_a_channel_is_named() {
    let mail = |more: Value| {
        let mut smtp = json!({"host": "mail.example", "from": "m@a.example", "to": ["o@a.example"]});
        smtp.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": "mail", "smtp": smtp})
    };
    for (channel, field) in [
        (json!({"name": "a b"}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": "a", "messages_per_minute_max": 0}), "messages_per_minute_max"),
        (json!({"name": "a", "webhook": {"url": "ftp://a.example"}}), "webhook.url"),
        (json!({"name": "a", "webhook": {"url": "http://a.example", "secret": "short"}}), "webhook.secret"),
        (json!({"name": "a", "slack": {"url": "a"}}), "slack.url"),
        (json!({"name": "a", "slack": {"url": "http://a"}, "webhook": {"url": "http://a"}}), "webhook"),
        (mail(json!({"host": "a b"})), "smtp.host"),
        (mail(json!({"port": 0})), "smtp.port"),
        (mail(json!({"username": "u"})), "smtp.password"),
        (mail(json!({"username": "u", "password": "p", "tls": "none"})), "smtp.tls"),
        (mail(json!({"from": "me"})), "smtp.from"),
        (mail(json!({"to": []})), "smtp.to"),
        (mail(json!({"to": ["o"]})), "smtp.to"),
    ] {
        assert_eq!(wrong(json!({"channels": [channel]})), [format!("alerts.channels[0].{field}")], "{channel}");
    }
    let twice = json!({"channels": [{"name": "a"}, {"name": "a"}]});
    assert_eq!(wrong(twice), ["alerts.channels[1].name"]);
    let many: Vec<Value> = (0..33).map(|number| json!({"name": format!("c{number}")})).collect();
    assert_eq!(wrong(json!({ "channels": many })), ["alerts.channels"]);
}

#[test]
fn quiet_hours_name_channels_that_there_are() {
    let hours = json!([{"from": "22:00", "to": "07:00", "time_zone": "Mars", "channels": ["a", "b"]}]);
    let fields = wrong(json!({"channels": [{"name": "a"}], "quiet_hours": hours}));
    assert_eq!(fields, ["alerts.quiet_hours[0].time_zone", "alerts.quiet_hours[0].channels"]);
}

#[test]
fn an_address_and_a_password_are_never_shown() {
    let url = "https://hooks.example/services/T0/B0/hunter2";
    let channel = AlertChannel::from_value(json!({"name": "a", "webhook": {
        "url": url, "secret": "hunter2hunter2hunter2", "headers": {"X": "hunter2"}}}))
    .unwrap();
    let shown = format!("{channel:?} {}", serde_json::to_value(&channel).unwrap());
    assert!(!shown.contains("hunter2") && shown.contains(Sensitive::MASK), "{shown}");
    assert_eq!(channel.webhook.unwrap().url.expose(), url);
    for wrong in [json!({"name": "a", "smtp": {"host": "h", "password": 7}}), json!({"name": "a", "smtp": "hunter2"})] {
        let error = AlertChannel::from_value(wrong).unwrap_err();
        assert!(error.context().problems[0].field.starts_with("smtp"), "{error}");
        assert!(!error.message().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_placeholder_is_checked_when_it_is_filled_in() {
    let fields = wrong(json!({"channels": [{"name": "a", "slack": {"url": "${env:HOOK}"}}]}));
    assert_eq!(fields, Vec::<String>::new());
}
