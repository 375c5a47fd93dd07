use super::*;

#[test]
fn a_type_error_names_the_field_and_never_quotes_the_value() {
    let error = ServiceSpec::parse(r#"{"name": "a", "env": "hunter2"}"#).unwrap_err();
    assert_eq!(error.context().problems[0].field, "env");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    assert!(error.message().contains("invalid type: text, expected a map"), "{error}");
}

#[test]
fn enabled_is_short_for_the_admin_state() {
    let state = |json: &str| ServiceSpec::parse(json).map(|spec| spec.admin_state);
    assert_eq!(state(r#"{"name": "a", "enabled": false}"#).unwrap(), AdminState::Disabled);
    assert_eq!(state(r#"{"name": "a", "enabled": true}"#).unwrap(), AdminState::Enabled);
    let kept = state(r#"{"name": "a", "enabled": false, "admin_state": "maintenance"}"#);
    assert_eq!(kept.unwrap(), AdminState::Maintenance);
    for contradiction in [r#"true, "admin_state": "disabled""#, r#"false, "admin_state": "enabled""#, "1"] {
        let error = state(&format!(r#"{{"name": "a", "enabled": {contradiction}}}"#)).unwrap_err();
        assert_eq!(error.context().problems[0].field, "enabled");
    }
}

#[test]
fn secrets_come_back_to_where_a_mask_stands() {
    let json = r#"{"name": "a", "env": {"TOKEN": "hunter2", "PLAIN": "${env:X}"}, "instances": [
        {"stdio": {"command": "x", "args": ["--api-key=qrs"], "env": {"PASSWORD": "tuv"}}},
        {"http": {"url": "https://u:ghi@example.com/", "headers": {"Authorization": "Bearer jkl"}}}]}"#;
    let spec = ServiceSpec::parse(json).unwrap();
    let shown = serde_json::to_value(&spec).unwrap();
    for secret in ["hunter2", "qrs", "tuv", "ghi", "jkl"] {
        assert!(!shown.to_string().contains(secret) && !format!("{spec:?}").contains(secret), "{secret}");
    }
    let mut back = ServiceSpec::from_value(shown).unwrap();
    assert!(back.dangling_mask().is_some());
    back.restore_secrets(&spec.secrets());
    assert_eq!(back.secrets(), spec.secrets());
    assert_eq!(back.dangling_mask(), None);
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let json = r#"{"name": "a", "title": "TITLE", "instances": [{"http": {"url": "ftp://x/"}, "weight": 0}],
        "health_policy": {"interval": "1ms"}, "documentation_url": "nowhere"}"#;
    let error = ServiceSpec::parse(&json.replace("TITLE", &"t".repeat(201))).unwrap_err();
    let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
    let expected =
        ["title", "documentation_url", "health_policy.interval", "instances[0].weight", "instances[0].http.url"];
    assert_eq!(fields, expected);
}
