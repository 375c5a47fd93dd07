use serde_json::json;

use super::*;
use crate::access::Principal;
use crate::machina::Machina;

async fn registry(record: Value) -> Machina {
    let machina = Machina::builder().without_monitor().open().await.unwrap();
    machina.register(ServiceSpec::from_value(record).unwrap()).await.unwrap();
    machina
}

fn web() -> Value {
    json!({"name": "web", "title": "Web", "tags": ["a", "b"], "labels": {"x": "1", "y": "2"}, "env": {"KEY": "hunter2"},
        "instances": [{"http": {"url": "http://a.example/"}}, {"http": {"url": "http://b.example/"}}]})
}

#[test]
fn patches_merge_as_the_rfc_says() {
    let table = [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
        (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a":"b"}), json!(["c"]), json!(["c"])),
        (json!({"a":"foo"}), Value::Null, Value::Null),
        (json!({"a":"foo"}), json!("bar"), json!("bar")),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
        (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
    ];
    for (mut target, patch, expected) in table {
        let shown = format!("{target} {patch}");
        merge(&mut target, &patch);
        assert_eq!(target, expected, "{shown}");
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_keeps_the_rest() {
    let machina = registry(web()).await;
    let before = machina.get("web").unwrap();
    let patch = json!({"title": null, "labels": {"x": null, "z": "3"}, "tags": ["c"], "required": true});
    let applied = machina.system().patch("web", &patch, None).await.unwrap();
    let after = machina.get("web").unwrap();
    let spec = &after.service().spec;
    assert_eq!((spec.title.as_deref(), spec.required, spec.tags.len()), (None, true, 1));
    assert_eq!(json!(spec.labels), json!({"y": "2", "z": "3"}));
    assert_eq!(spec.env["KEY"].expose(), "hunter2");
    assert_eq!(spec.instances, before.service().spec.instances);
    assert_eq!(applied.services[0].revision, after.service().revision);

    let stale =
        machina.system().patch("web", &json!({"title": "x"}), Some(before.service().revision)).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    for (patch, field) in
        [(json!({"colour": 1}), "colour"), (json!([1]), "body"), (json!({"required": "x"}), "required")]
    {
        let error = machina.system().patch("web", &patch, None).await.unwrap_err();
        assert_eq!((error.kind(), error.context().problems[0].field.as_str()), (ErrorKind::Invalid, field), "{error}");
    }
}

#[tokio::test]
async fn a_service_is_switched_by_a_patch() {
    let machina = registry(web()).await;
    let table = [
        (json!({"enabled": false}), AdminState::Disabled),
        (json!({"enabled": true}), AdminState::Enabled),
        (json!({"admin_state": "maintenance"}), AdminState::Maintenance),
        (json!({"enabled": false}), AdminState::Maintenance),
        (json!({"title": "x"}), AdminState::Maintenance),
        (json!({"enabled": true}), AdminState::Enabled),
        (json!({"enabled": true}), AdminState::Enabled),
    ];
    for (patch, expected) in table {
        machina.system().patch("web", &patch, None).await.unwrap();
        assert_eq!(machina.get("web").unwrap().service().spec.admin_state, expected, "{patch}");
    }
}

#[tokio::test]
async fn instances_come_change_and_go() {
    let machina = registry(web()).await;
    let system = machina.system();
    let (_, id) = system.add_instance("web", &json!({"http": {"url": "http://a.example/"}}), None).await.unwrap();
    let ids = || machina.get("web").unwrap().service().spec.instances.iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!((ids().len(), ids()[2]), (3, id), "the same endpoint twice is two instances");
    let (_, same) = system.patch_instance("web", id, &json!({"weight": 7}), None).await.unwrap();
    assert_eq!(same, id);
    let elsewhere = json!({"http": {"url": "http://c.example/"}});
    let (_, id) = system.patch_instance("web", id, &elsewhere, None).await.unwrap();
    assert_ne!(same, id, "reached in another way, it is another instance");
    let view = machina.get("web").unwrap();
    let changed = view.service().instance(id).unwrap();
    assert_eq!((changed.weight, changed.endpoint.location().as_str()), (7, "http://c.example/"));
    let first = ids()[0];
    system.remove_instance("web", first, None).await.unwrap();
    assert_eq!((ids().len(), ids().contains(&first)), (2, false));

    let gone = system.remove_instance("web", first, None).await.unwrap_err();
    assert_eq!((gone.kind(), gone.context().instance.clone()), (ErrorKind::NotFound, Some(first.to_string())));
    assert_eq!(system.patch_instance("web", first, &json!({}), None).await.unwrap_err().kind(), ErrorKind::NotFound);
    let table = [
        (json!({"http": {"url": "http://d.example/"}, "weight": 0}), "weight"),
        (json!({"http": {"url": "ftp://d"}}), "http.url"),
        (json!({"weight": 1}), "body"),
        (json!({"id": first, "http": {"url": "http://d.example/"}}), "id"),
        (json!("x"), "body"),
    ];
    for (record, field) in table {
        let error = system.add_instance("web", &record, None).await.unwrap_err();
        assert_eq!((error.kind(), error.context().problems[0].field.as_str()), (ErrorKind::Invalid, field), "{error}");
    }
}

#[tokio::test]
async fn maintenance_ends_only_where_it_began() {
    let machina = registry(web()).await;
    let system = machina.system();
    let state = || machina.get("web").unwrap().service().spec.admin_state;
    system.set_maintenance("web", true, None).await.unwrap();
    assert_eq!(state(), AdminState::Maintenance);
    system.set_maintenance("web", false, None).await.unwrap();
    assert_eq!(state(), AdminState::Enabled);
    system.patch("web", &json!({"enabled": false}), None).await.unwrap();
    system.set_maintenance("web", false, None).await.unwrap();
    assert_eq!(state(), AdminState::Disabled);
}

#[tokio::test]
async fn a_reason_stands_in_the_record_and_in_the_audit_trail_until_the_state_ends() {
    let machina = registry(web()).await;
    let system = machina.system();
    let reason = || machina.get("web").unwrap().service().spec.admin_reason.clone();
    system.set_maintenance("web", true, Some("a new disk")).await.unwrap();
    system.set_maintenance("web", true, None).await.unwrap();
    assert_eq!(reason().as_deref(), Some("a new disk"), "said once, it stays");
    assert_eq!(system.get("web").await.unwrap().declared["admin_reason"], "a new disk");
    assert_eq!(system.health("web").await.unwrap().admin_reason.as_deref(), Some("a new disk"));
    let explained = crate::machina::Router::explain(system, "web", None).await.unwrap();
    assert_eq!(explained.admin_reason.as_deref(), Some("a new disk"));
    assert_eq!(explained.candidates[0].reason, "the service is maintenance: a new disk");

    let long = "x".repeat(501);
    let error = system.set_maintenance("web", true, Some(&long)).await.unwrap_err();
    assert_eq!((error.kind(), error.context().problems[0].field.as_str()), (ErrorKind::Invalid, "admin_reason"));
    system.set_maintenance("web", false, Some("it is in")).await.unwrap();
    assert_eq!(reason(), None, "an enabled service needs no reason");

    let said = system.journal(&crate::JournalQuery::of(crate::EntryKind::Audit)).await.unwrap().entries;
    let reasons: Vec<_> = said
        .iter()
        .filter_map(|entry| match &entry.what {
            crate::What::Audit { detail, .. } => detail.get("reason").and_then(Value::as_str),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, ["it is in", "a new disk"], "newest first");
}

#[tokio::test]
async fn an_instance_has_a_reason_of_its_own() {
    let machina = registry(web()).await;
    let id = machina.get("web").unwrap().service().spec.instances[0].id;
    let name = crate::ServiceName::new("web").unwrap();
    let say = |admin_state, reason: Option<&str>| {
        let (name, reason) = (name.clone(), reason.map(str::to_owned));
        machina.apply(vec![Mutation::SetAdminState { name, instance: Some(id), admin_state, reason }])
    };
    say(AdminState::Quarantined, Some("its tools changed")).await.unwrap();
    let health = machina.health("web").await.unwrap();
    assert_eq!(health.instances[0].admin_reason.as_deref(), Some("its tools changed"));
    assert_eq!((health.admin_reason, health.instances[1].admin_reason.clone()), (None, None));
    say(AdminState::Draining, None).await.unwrap();
    assert_eq!(machina.health("web").await.unwrap().instances[0].admin_reason, None, "that was another state");
    let long = "x".repeat(501);
    assert_eq!(say(AdminState::Draining, Some(&long)).await.unwrap_err().kind(), ErrorKind::Invalid);
    say(AdminState::Draining, Some("x")).await.unwrap();
    say(AdminState::Enabled, None).await.unwrap();
    assert_eq!(machina.health("web").await.unwrap().instances[0].admin_reason, None);
}

#[tokio::test]
async fn maintenance_of_an_instance_ends_only_where_it_began_and_for_admins() {
    let machina = registry(web()).await;
    let (system, id) = (machina.system(), machina.get("web").unwrap().service().spec.instances[1].id);
    let state = || {
        let view = machina.get("web").unwrap();
        let instance = view.instance(id).unwrap().0.clone();
        (instance.admin_state, instance.admin_reason)
    };
    system.set_instance_maintenance("web", id, true, Some("a new disk")).await.unwrap();
    system.set_instance_maintenance("web", id, true, None).await.unwrap();
    assert_eq!(state(), (AdminState::Maintenance, Some("a new disk".to_owned())));
    system.set_instance_maintenance("web", id, false, None).await.unwrap();
    assert_eq!(state(), (AdminState::Enabled, None));
    let name = crate::ServiceName::new("web").unwrap();
    let (admin_state, reason) = (AdminState::Quarantined, Some("its tools changed".to_owned()));
    let said = Mutation::SetAdminState { name, instance: Some(id), admin_state, reason: reason.clone() };
    system.apply(vec![said]).await.unwrap();
    system.set_instance_maintenance("web", id, false, None).await.unwrap();
    assert_eq!(state(), (AdminState::Quarantined, reason));

    let viewer = machina.scoped(Principal::new("v", Role::Viewer));
    let refused = viewer.set_instance_maintenance("web", id, false, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden, "also where nothing would change");
    let missing = system.set_instance_maintenance("web", InstanceId::generate(), false, None).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_toggle_switches_off_and_on() {
    let machina = registry(web()).await;
    let system = machina.system();
    let state = || machina.get("web").unwrap().service().spec.admin_state;
    for expected in [AdminState::Disabled, AdminState::Enabled] {
        system.toggle("web").await.unwrap();
        assert_eq!(state(), expected);
    }
    system.set_maintenance("web", true, None).await.unwrap();
    system.toggle("web").await.unwrap();
    assert_eq!(state(), AdminState::Enabled);
    let (a, b) = tokio::join!(system.toggle("web"), system.toggle("web"));
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(state(), AdminState::Enabled, "each of them counts");
}

#[tokio::test]
async fn concurrent_patches_are_all_kept() {
    let machina = registry(web()).await;
    let patches: Vec<Value> = (0..4).map(|number| json!({"labels": {number.to_string(): "x"}})).collect();
    let system = machina.system();
    let (a, b, c, d) = tokio::join!(
        system.patch("web", &patches[0], None),
        system.patch("web", &patches[1], None),
        system.patch("web", &patches[2], None),
        system.patch("web", &patches[3], None),
    );
    [a, b, c, d].into_iter().for_each(|outcome| drop(outcome.unwrap()));
    assert_eq!(machina.get("web").unwrap().service().spec.labels.len(), 6);
}

#[tokio::test]
async fn roles_are_kept() {
    let machina = registry(web()).await;
    let id = machina.get("web").unwrap().service().spec.instances[0].id;
    let of = |role| machina.scoped(Principal::new("someone", role));
    assert_eq!(of(Role::Viewer).check("web").await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!(of(Role::Developer).check("web").await.unwrap().instances.len(), 2);
    assert_eq!(of(Role::Developer).check("none").await.unwrap_err().kind(), ErrorKind::NotFound);
    let developer = of(Role::Developer);
    let refused = [
        developer.patch("web", &json!({}), None).await.map(drop),
        developer.add_instance("web", &json!({}), None).await.map(drop),
        developer.patch_instance("web", id, &json!({}), None).await.map(drop),
        developer.remove_instance("web", id, None).await.map(drop),
        developer.set_maintenance("web", true, None).await.map(drop),
    ];
    assert!(refused.iter().all(|outcome| outcome.as_ref().unwrap_err().kind() == ErrorKind::Forbidden));
}

#[tokio::test]
async fn one_tenant_does_not_watch_them_all() {
    let machina = registry(web()).await;
    let cursor = machina.watch().cursor().unwrap();
    let tenant = machina.scoped(Principal::new("someone", Role::Admin).of_tenant("acme"));
    assert_eq!(tenant.watch_after(&cursor).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(tenant.watch(None).await.unwrap_err().kind(), ErrorKind::Unsupported);
    let mut ahead = machina.system().watch(Some(Revision(99))).await.unwrap();
    assert_eq!(ahead.try_next(), Some(crate::event::Next::Resync), "that revision has not been yet");
}
