use proptest::prelude::*;
use serde_json::json;

use super::*;

fn group(members: Value) -> Group {
    let spec = GroupSpec::from_value(json!({"name": "g", "members": members})).unwrap();
    Group::new(spec, Timestamp::UNIX_EPOCH, "alice")
}

fn fields(value: Value) -> Vec<String> {
    let error = GroupSpec::from_value(value).unwrap_err();
    error.context().problems.iter().map(|problem| problem.field.clone()).collect()
}

#[test]
fn what_is_selected() {
    let group = group(json!([{"service": "a"}, {"service": "x/b", "tools": ["read", "list_*", "*_all", "a*b*c"]}]));
    let selects = |service: &str, tool: &str| group.selects(&ServiceName::new(service).unwrap(), tool);
    assert!(selects("a", "anything") && group.has_member("a") && !group.has_member("b"));
    for good in ["read", "list_", "list_files", "drop_all", "abc", "aXbYc", "abbcc", "a*b*c"] {
        assert!(selects("x/b", good), "{good}");
    }
    for bad in ["", "reader", "Read", "lis", "drop_al", "ab", "acb", "ac", "xabc", "abcx"] {
        assert!(!selects("x/b", bad), "{bad}");
    }
    assert!(!selects("c", "read"));
}

#[test]
fn a_record_reads_back_and_has_defaults() {
    let spec = GroupSpec::from_value(json!({"name": "g"})).unwrap();
    assert_eq!((spec.mode, spec.prefix), (ToolMode::Flat, ToolPrefix::Always));
    let whole = json!({"name": "g", "title": "G", "description": "d", "tenant": "t",
        "members": [{"service": "a", "tools": ["x*"]}, {"service": "b"}], "mode": "meta", "prefix": "on_collision"});
    let spec = GroupSpec::from_value(whole.clone()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), whole);
    let mut read = whole;
    for field in READ_ONLY {
        read[field] = json!(1);
    }
    assert_eq!(GroupSpec::from_value(read).unwrap(), spec, "what only a reader gets is passed over");
}

#[test]
fn every_wrong_field_is_named() {
    let member = json!({"service": "a"});
    for (record, expected) in [
        (json!({"name": "a/b"}), vec!["name"]),
        (json!({"name": "g", "colour": 1}), vec!["colour"]),
        (json!({"name": "g", "mode": "wide"}), vec!["mode"]),
        (json!({"name": "g", "members": [{"service": "A b"}]}), vec!["members[0].service"]),
        (json!({"name": "g", "members": [{"service": "a", "tools": [""]}]}), vec!["members[0].tools[0]"]),
        (
            json!({"name": "g", "title": "x".repeat(201), "members": [member, member, {"service": "b", "tools": []}]}),
            vec!["title", "members[1].service", "members[2].tools"],
        ),
        (json!({"name": "g", "members": vec![member.clone(); 1001]}), vec!["members"]),
        (json!({"name": "g", "members": [{"service": "a", "tools": vec!["x"; 10_001]}]}), vec!["members"]),
    ] {
        assert_eq!(fields(record), expected);
    }
}

proptest! {
    /// A pattern and a name agree exactly if the obvious recursive definition says so.
    #[test]
    fn patterns_match_as_defined(pattern in "[ab*]{1,8}", name in "[ab]{0,10}") {
        fn defined(pattern: &[u8], name: &[u8]) -> bool {
            match pattern.split_first() {
                None => name.is_empty(),
                Some((b'*', rest)) => (0..=name.len()).any(|skip| defined(rest, &name[skip..])),
                Some((letter, rest)) => name.split_first().is_some_and(|(l, n)| l == letter && defined(rest, n)),
            }
        }
        let group = group(json!([{"service": "a", "tools": [pattern]}]));
        let selected = group.selects(&ServiceName::new("a").unwrap(), &name);
        prop_assert_eq!(selected, defined(pattern.as_bytes(), name.as_bytes()));
    }
}

#[test]
fn names_of_other_endpoints_are_refused() {
    for name in RESERVED {
        let error = GroupSpec::from_value(json!({ "name": name })).unwrap_err();
        assert_eq!(error.context().problems[0].field, "name", "{error}");
    }
    GroupSpec::from_value(json!({"name": "tools"})).unwrap();
}
