use super::*;

#[test]
fn a_part_of_the_record_is_replaced_whole() {
    let object = |value: Value| value.as_object().cloned().unwrap();
    let old = object(json!({"min": 1, "max": 9, "cpu": {"target": 80, "window": "1m"}}));
    let new = object(json!({"max": 5, "cpu": {"target": 70}}));
    let patch = replacing(&old, new);
    assert_eq!(Value::Object(patch), json!({"max": 5, "cpu": {"target": 70, "window": null}, "min": null}));
}

#[test]
fn the_summary_counts_every_status_once() {
    let statuses = Status::ALL.iter().map(|status| (status.as_str().to_owned(), 1)).collect();
    let mut overview: Overview = serde_json::from_value(json!({"revision": 1, "services": 6, "statuses": {},
        "instances": 0, "tools": 0, "dropped_journal_entries": 0}))
    .unwrap();
    overview.statuses = statuses;
    let counted = json!({"status": "unhealthy", "total": 6, "healthy": 2, "unhealthy": 1, "unknown": 3});
    assert_eq!(summary(&overview), counted);
    overview.statuses.clear();
    assert_eq!(summary(&overview)["status"], "healthy");
}
