use serde_json::json;

use super::*;
use crate::access::{Principal, Role};
use crate::config::Config;
use crate::error::ErrorKind;
use crate::machina::{Machina, Registry};
use crate::model::ServiceSpec;
use crate::write::Mutation;

fn template() -> CommandTemplate {
    CommandTemplate::from_value(json!({"command": "/usr/bin/disk-server", "args": [
        "--root", {"hole": "path", "under": "/srv"}, {"hole": "integer", "least": 1, "most": 9},
        {"hole": "one_of", "values": ["ro", "rw"]}, {"hole": "word"}]}))
    .unwrap()
}

fn makes(change: impl FnOnce(&mut Value)) -> bool {
    let mut stdio = json!({"command": "/usr/bin/disk-server", "args": ["--root", "/srv/a b", "3", "ro", "disk-1"]});
    change(&mut stdio);
    template().makes(&serde_json::from_value(stdio).unwrap())
}

#[test]
fn a_command_is_all_that_the_template_says_and_nothing_else() {
    assert!(makes(|_| {}));
    assert!(!makes(|stdio| stdio["command"] = json!("disk-server")));
    assert!(!makes(|stdio| stdio["command"] = json!("/usr/bin/../bin/disk-server")));
    assert!(!makes(|stdio| stdio["cwd"] = json!("/srv")));
    assert!(!makes(|stdio| stdio["env"] = json!({"A": "b"})));
    assert!(!makes(|stdio| stdio["args"] = json!(["--root", "/srv", "3", "ro"])));
    assert!(!makes(|stdio| stdio["args"] = json!(["--root", "/srv", "3", "ro", "disk", "--exec"])));
    assert!(!makes(|stdio| stdio["args"][0] = json!("--exec")));
}

#[test]
fn a_hole_takes_what_is_of_its_type() {
    let fits = |index: usize, text: &str| makes(|stdio| stdio["args"][index] = json!(text));
    for good in ["/srv", "/srv/", "/srv/a/b", "/srv/..a"] {
        assert!(fits(1, good), "{good}");
    }
    for bad in ["/etc", "/srv2", "/srv/../etc", "/srv/./a", "srv", "", "/srv/${HOME}", "/srv/a\0b", "/srv/a\nb"] {
        assert!(!fits(1, bad), "{bad}");
    }
    assert!(!fits(1, &format!("/srv/{}", "a".repeat(HOLE_MAX))));
    assert!(fits(2, "1") && fits(2, "9"));
    for bad in ["0", "10", "+3", "03", "3 ", "three", ""] {
        assert!(!fits(2, bad), "{bad}");
    }
    assert!(fits(3, "rw") && !fits(3, "RW") && !fits(3, "") && !fits(3, "ro,rw"));
    for bad in ["-x", "--exec", ".x", "a/b", "a b", "a$b", "ä", ""] {
        assert!(!fits(4, bad), "{bad}");
    }
}

#[test]
fn what_is_wrong_with_a_template_is_named() {
    let wrong = |value: Value| {
        let error = CommandTemplate::from_value(value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.context().problems.iter().map(|problem| problem.field.clone()).collect::<Vec<_>>()
    };
    assert_eq!(wrong(json!({"command": "npx"})), ["command"]);
    assert_eq!(wrong(json!({"command": "/usr/../bin/x"})), ["command"]);
    assert_eq!(
        wrong(json!({"command": "/x", "args": [{"hole": "integer", "least": 2, "most": 1}]})),
        ["args[0].least"]
    );
    assert_eq!(wrong(json!({"command": "/x", "args": ["a", {"hole": "path", "under": "srv"}]})), ["args[1].under"]);
    assert_eq!(wrong(json!({"command": "/x", "args": [{"hole": "one_of", "values": []}]})), ["args[0].values"]);
    assert_eq!(wrong(json!({"command": "/x", "args": [{"hole": "anything"}]})), ["args[0]"]);
    assert_eq!(wrong(json!({"command": "/x", "args": [{"hole": "word", "values": ["ro"]}]})), ["args[0]"]);
    assert_eq!(wrong(json!({"command": "/x", "shell": true})).len(), 1);
    assert_eq!(wrong(json!({"args": []})).len(), 1);
}

#[tokio::test]
async fn from_outside_an_administrator_may_register_what_a_template_makes() {
    let mut config = Config::default();
    let echo = json!({"command": "/usr/bin/echo", "args": ["--name", {"hole": "word"}]});
    config.access.command_templates = vec![template(), CommandTemplate::from_value(echo).unwrap()];
    let machina = Machina::builder().config(config).without_monitor().open().await.unwrap();
    let put = async |role: Role, spec: Value| {
        let outside = machina.scoped(Principal::new("someone", role).remote());
        outside.apply(vec![Mutation::Put(ServiceSpec::from_value(spec)?)]).await.map(drop)
    };
    let disk = |root: &str| {
        json!({"name": "disk", "instances": [
            {"stdio": {"command": "/usr/bin/disk-server", "args": ["--root", root, "3", "ro", "disk"]}}]})
    };
    let refused = put(Role::Admin, disk("/etc")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    assert!(refused.message().contains("access.command_templates"), "{refused}");
    let mut with_environment = disk("/srv/data");
    with_environment["env"] = json!({"LD_PRELOAD": "/x.so"});
    assert_eq!(put(Role::Admin, with_environment.clone()).await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!(put(Role::Developer, disk("/srv/data")).await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert!(machina.view().is_empty());
    let told = json!({"name": "told", "instances": [{"stdio": {"command": "x", "args": ["--token", "hunter2"]}}]});
    machina.system().apply(vec![Mutation::Put(ServiceSpec::from_value(told).unwrap())]).await.unwrap();
    let mut moved = serde_json::to_value(machina.system().get("told").await.unwrap()).unwrap();
    let shown = moved["instances"][0]["stdio"]["args"][1].clone();
    assert_ne!(shown, "hunter2");
    moved["instances"][0]["stdio"] = json!({"command": "/usr/bin/echo", "args": ["--name", shown]});
    assert_eq!(put(Role::Admin, moved).await.unwrap_err().kind(), ErrorKind::Forbidden);
    machina.deregister("told").await.unwrap();
    put(Role::Admin, disk("/srv/data")).await.unwrap();
    with_environment["description"] = json!("it is there already");
    assert_eq!(put(Role::Admin, with_environment).await.unwrap_err().kind(), ErrorKind::Forbidden);
}
