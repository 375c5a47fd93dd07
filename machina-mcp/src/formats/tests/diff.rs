//! What an import would change.

use std::time::Duration;

use machina_core::{HttpEndpoint, Instance, Sensitive, ServiceSpec, StdioEndpoint};
use serde_json::json;

use super::SECRET;
use crate::formats::{Difference, FieldChange, diff};

fn service(args: &[&str], token: &str) -> ServiceSpec {
    let stdio = StdioEndpoint::new("npx", args.to_vec()).env("TOKEN", token);
    ServiceSpec::new("x").unwrap().instance(Instance::new(stdio))
}

fn changes(old: &ServiceSpec, new: &ServiceSpec) -> Vec<FieldChange> {
    match diff(std::slice::from_ref(old), std::slice::from_ref(new)).remove(0) {
        Difference::Changed { fields, .. } => fields,
        Difference::Unchanged { .. } => Vec::new(),
        Difference::Added { name } => panic!("{name} is added"),
    }
}

#[test]
fn added_and_unchanged() {
    let spec = service(&["a"], SECRET);
    assert!(matches!(diff(&[], std::slice::from_ref(&spec))[..], [Difference::Added { .. }]));
    assert!(matches!(
        diff(std::slice::from_ref(&spec), &[service(&["a"], SECRET)])[..],
        [Difference::Unchanged { .. }]
    ));
    assert_eq!(diff(&[spec], &[]), []);
}

#[test]
fn changed_fields_show_old_and_new() {
    let mut new = service(&["a", "c"], SECRET);
    new.title = Some("X".to_owned());
    new.routing_policy.timeout = Some(Duration::from_secs(60));
    let found = changes(&service(&["a", "b"], SECRET), &new);
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    let wanted = [
        "title: (absent) → \"X\"",
        "routing_policy.timeout: (absent) → \"1m\"",
        "instances[0].stdio.args[1]: \"b\" → \"c\"",
    ];
    assert_eq!(shown, wanted);
}

#[test]
fn a_changed_secret_shows_as_changed_and_not_by_its_value() {
    let old = service(&["--api-key=hunter2", "b"], SECRET);
    let new = service(&["--api-key=hunter2-new", "b"], "hunter2-new");
    let found = changes(&old, &new);
    let fields: Vec<_> = found.iter().map(|change| (change.field.as_str(), change.secret)).collect();
    assert_eq!(fields, [("instances[0].stdio.args[0]", true), ("instances[0].stdio.env.TOKEN", true)]);
    assert!(!format!("{found:?}").contains(SECRET));
    let reference = changes(&old, &service(&["--api-key=hunter2", "b"], "${env:TOKEN}"));
    assert_eq!(reference[0].to_string(), "instances[0].stdio.env.TOKEN: \"********\" → \"${env:TOKEN}\"");
    let longer = changes(&old, &service(&["--api-key=hunter2", "b", "c"], SECRET));
    assert_eq!(longer[0].new, Some(json!(["********", "b", "c"])));
}

#[test]
fn a_mask_means_as_before() {
    let old = service(&["a"], SECRET);
    assert_eq!(changes(&old, &service(&["a"], Sensitive::MASK)), []);
}

fn with_key(url: &str, key: &str) -> HttpEndpoint {
    let mut http = HttpEndpoint::new(url);
    http.headers.insert("X-Key".to_owned(), Sensitive::secret(key));
    http
}

#[test]
fn a_secret_of_which_only_the_mask_is_known_is_not_compared_and_no_change() {
    let spec = |url: &str, key: &str| {
        let http = with_key("https://a.example/mcp", key);
        let mut spec = service(&["--api-key=hunter2", "b"], SECRET).instance(Instance::new(HttpEndpoint::new(url)));
        spec.instances.push(Instance::new(http));
        spec
    };
    let wanted = spec("https://u:p@b.example/mcp", SECRET);
    // As a server shows it to those who ask.
    let seen = ServiceSpec::from_value(serde_json::to_value(&wanted).unwrap()).unwrap();
    let compared = diff(std::slice::from_ref(&seen), std::slice::from_ref(&wanted)).remove(0);
    assert!(matches!(compared, Difference::Unchanged { .. }), "{compared:?}");
    let fields = [
        "instances[0].stdio.args[0]",
        "instances[0].stdio.env.TOKEN",
        "instances[1].http.url",
        "instances[2].http.headers.X-Key",
    ];
    assert_eq!(compared.not_compared(), fields);
    let mut titled = wanted.clone();
    titled.title = Some("X".to_owned());
    let compared = diff(&[seen], &[titled]).remove(0);
    let Difference::Changed { fields: changed, .. } = &compared else { panic!("{compared:?}") };
    assert_eq!((changed.len(), compared.not_compared().len()), (1, 4), "{compared:?}");
}

#[test]
fn instances_with_masks_are_compared_with_those_that_look_alike() {
    let http = |host: &str| Instance::new(with_key(&format!("https://{host}.example/mcp"), SECRET));
    let both = |first, second| ServiceSpec::new("x").unwrap().instance(http(first)).instance(http(second));
    let seen = ServiceSpec::from_value(serde_json::to_value(both("a", "b")).unwrap()).unwrap();
    let compared = diff(&[seen], &[both("b", "a")]).remove(0);
    assert!(matches!(&compared, Difference::Unchanged { not_compared, .. } if not_compared.len() == 2), "{compared:?}");
}

#[test]
fn instances_are_compared_with_those_that_they_replace() {
    let http = |host: &str, key: &str| {
        let mut http = HttpEndpoint::new(format!("https://{host}.example/mcp"));
        http.headers.insert("X-Key".to_owned(), Sensitive::secret(key));
        Instance::new(http)
    };
    let old = ServiceSpec::new("x").unwrap().instance(http("a", SECRET)).instance(http("b", SECRET));
    let turned = ServiceSpec::new("x").unwrap().instance(http("b", SECRET)).instance(http("a", SECRET));
    assert_eq!(changes(&old, &turned), []);
    let fewer = ServiceSpec::new("x").unwrap().instance(http("b", "hunter2-new"));
    let found = changes(&old, &fewer);
    assert_eq!(found.last().map(|change| change.new.is_none()), Some(true), "{found:#?}");
    let more =
        ServiceSpec::new("x").unwrap().instance(http("a", SECRET)).instance(http("b", SECRET)).instance(http("c", "k"));
    let found = changes(&old, &more);
    assert_eq!((found.len(), found[0].field.as_str(), found[0].old.is_none()), (1, "instances[2]", true));
}

#[test]
fn differences_are_plain_data() {
    let value = serde_json::to_value(diff(&[], &[service(&["a"], SECRET)])).unwrap();
    assert_eq!(value, json!([{"change": "added", "name": "x"}]));
}
