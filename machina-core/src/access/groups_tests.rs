use serde_json::json;

use super::*;
use crate::access::Principal;
use crate::config::Config;
use crate::error::ErrorKind;
use crate::event::{EventKind, Next};
use crate::machina::Machina;
use crate::model::ServiceSpec;
use crate::store::{EntryKind, JournalQuery};

fn spec(record: Value) -> GroupSpec {
    GroupSpec::from_value(record).unwrap()
}

async fn machina() -> Machina {
    let mut config = Config::default();
    config.limits.groups_max = 2;
    Machina::builder().config(config).open().await.unwrap()
}

#[tokio::test]
async fn a_change_is_audited_and_told() {
    let machina = machina().await;
    let (system, mut events) = (machina.system(), machina.watch());
    let group = system.put_group(spec(json!({"name": "g"})), None, true).await.unwrap();
    let again = system.put_group(spec(json!({"name": "g"})), None, false).await.unwrap();
    assert_eq!(again.revision, group.revision, "the same record is no change");
    system.put_group(spec(json!({"name": "g", "title": "G"})), Some(group.revision), false).await.unwrap();
    let gone = system.remove_group("g", None).await.unwrap();
    assert_eq!((system.revision(), gone), (Revision(3), Revision(3)));
    assert!(system.groups().is_empty());

    let name = || GroupName::new("g").unwrap();
    let expected = [
        EventKind::GroupChanged { group: name() },
        EventKind::GroupChanged { group: name() },
        EventKind::GroupRemoved { group: name() },
    ];
    for (kind, revision) in expected.into_iter().zip(1..) {
        let Some(Next::Event(event)) = events.try_next() else { panic!("no event") };
        assert_eq!((&event.kind, event.revision, &event.service), (&kind, Revision(revision), &None));
    }
    let page = machina.journal(&JournalQuery::of(EntryKind::Audit)).await.unwrap();
    let actions = page.entries.iter().map(|entry| match &entry.what {
        What::Audit { action, detail, .. } if detail["group"] == "g" => action.as_str(),
        other => panic!("{other:?}"),
    });
    assert_eq!(actions.collect::<Vec<_>>(), ["remove_group", "update_group", "create_group"]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_says_why() {
    let machina = machina().await;
    let system = machina.system();
    let first = system.put_group(spec(json!({"name": "a"})), None, true).await.unwrap();
    let kind = |refused: Result<Arc<Group>>| refused.unwrap_err().kind();
    assert_eq!(kind(system.put_group(spec(json!({"name": "a"})), None, true).await), ErrorKind::Conflict);
    let stale = Some(Revision(first.revision.0 + 1));
    assert_eq!(kind(system.put_group(spec(json!({"name": "a"})), stale, false).await), ErrorKind::Conflict);
    assert_eq!(kind(system.put_group(spec(json!({"name": "b"})), stale, false).await), ErrorKind::NotFound);
    assert_eq!(system.remove_group("a", stale).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(system.remove_group("b", None).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(kind(system.group("b")), ErrorKind::NotFound);
    let mut wrong = spec(json!({"name": "b"}));
    wrong.title = Some("x".repeat(201));
    let error = system.put_group(wrong, None, false).await.unwrap_err();
    assert_eq!(error.context().problems[0].field, "title");
    system.put_group(spec(json!({"name": "b"})), None, true).await.unwrap();
    let error = system.put_group(spec(json!({"name": "c"})), None, true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.message().contains("limits.groups_max"), "{error}");
}

#[tokio::test]
async fn each_tenant_has_its_own() {
    let machina = machina().await;
    machina.register(ServiceSpec::parse(r#"{"name": "secret", "tenant": "b"}"#).unwrap()).await.unwrap();
    let admin = |tenant: &str| machina.scoped(Principal::new(tenant, Role::Admin).of_tenant(tenant));
    let (a, b) = (admin("a"), admin("b"));
    let own = json!({"name": "g", "tenant": "a", "members": [{"service": "secret"}]});
    let group = a.put_group(spec(own), None, true).await.unwrap();
    assert_eq!(a.group_report(&group).missing.len(), 1, "what is not seen does not exist");
    assert!(machina.system().group_report(&group).missing.is_empty());
    assert!(b.groups().is_empty());
    for error in [
        b.group("g").unwrap_err(),
        b.remove_group("g", None).await.unwrap_err(),
        b.put_group(spec(json!({"name": "g", "tenant": "b"})), None, false).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let foreign = b.put_group(spec(json!({"name": "h", "tenant": "a"})), None, true).await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::Forbidden);
    let reader = machina.scoped(Principal::new("reader", Role::Developer));
    assert_eq!(reader.groups().len(), 1);
    assert_eq!(reader.remove_group("g", None).await.unwrap_err().kind(), ErrorKind::Forbidden);
}
