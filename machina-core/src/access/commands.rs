//! Which commands someone outside the process may have it start: none that it
//! was not going to start anyway. To register a command is to run it, as the
//! user that runs the registry.

use super::Principal;
use crate::config::AccessConfig;
use crate::error::{Error, Result};
use crate::model::{Endpoint, Service};
use crate::view::{Delta, View};

/// # Errors
/// [`Forbidden`](crate::ErrorKind::Forbidden) when a remote principal adds or
/// changes a command, its arguments, its directory or its environment, and the
/// configuration does not allow that.
pub(super) fn refuse_new_commands(
    before: &View,
    deltas: &[Delta],
    principal: &Principal,
    config: &AccessConfig,
) -> Result<()> {
    if !principal.remote || config.allow_stdio_registration {
        return Ok(());
    }
    for delta in deltas {
        let Delta::Put(service) = delta else { continue };
        let known = before.by_id(service.id).map(|view| &**view.service());
        if let Some(index) = new_command(known, service) {
            let message = format!(
                "instances[{index}].stdio of `{}` is a command, and from outside no command may be registered or \
                 changed; set access.allow_stdio_registration = true to allow that, or declare it in a file that \
                 the server imports",
                service.name()
            );
            return Err(Error::forbidden(message).with(|context| context.service = Some(service.name().to_string())));
        }
    }
    Ok(())
}

/// The first instance of `after` that starts something else than `before` did.
fn new_command(before: Option<&Service>, after: &Service) -> Option<usize> {
    let same_env = before.is_some_and(|before| before.spec.env == after.spec.env);
    after.spec.instances.iter().position(|instance| {
        let known = before.and_then(|before| before.instance(instance.id));
        let same = same_env && known.is_some_and(|known| known.endpoint == instance.endpoint);
        matches!(instance.endpoint, Endpoint::Stdio(_)) && !same
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::access::{Principal, Role, Scoped};
    use crate::config::Config;
    use crate::error::{ErrorKind, Result};
    use crate::machina::{Machina, Registry};
    use crate::model::{AdminState, ServiceName, ServiceSpec};
    use crate::write::Mutation;

    async fn registry(allow: bool) -> Machina {
        let mut config = Config::default();
        config.access.allow_stdio_registration = allow;
        Machina::builder().config(config).without_monitor().open().await.unwrap()
    }

    fn outside(machina: &Machina) -> Scoped {
        machina.scoped(Principal::new("someone", Role::Admin).remote())
    }

    fn declared() -> Value {
        json!({"name": "disk", "env": {"HOME": "/srv"}, "instances": [
            {"stdio": {"command": "disk-server", "args": ["--token", "abc"]}},
            {"http": {"url": "https://disk.example/mcp"}}]})
    }

    async fn put(scoped: &Scoped, spec: Value) -> Result<()> {
        scoped.apply(vec![Mutation::Put(ServiceSpec::from_value(spec)?)]).await.map(drop)
    }

    #[tokio::test]
    async fn a_command_can_be_registered_from_inside_only_unless_allowed() {
        let machina = registry(false).await;
        let refused = put(&outside(&machina), declared()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
        assert!(refused.message().contains("access.allow_stdio_registration"), "{refused}");
        assert!(machina.view().is_empty());
        put(machina.system(), declared()).await.unwrap();
        put(&outside(&registry(true).await), declared()).await.unwrap();
        put(&outside(&machina), json!({"name": "web", "instances": [{"http": {"url": "http://a.example/"}}]}))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn what_runs_already_can_be_described_anew_but_not_changed() {
        let machina = registry(false).await;
        put(machina.system(), declared()).await.unwrap();
        let seen = serde_json::to_value(machina.system().get("disk").await.unwrap()).unwrap();
        let outside = outside(&machina);

        let mut described = seen.clone();
        described["description"] = json!("the same command, secrets masked");
        described["instances"][0]["weight"] = json!(7);
        put(&outside, described).await.unwrap();
        let name = ServiceName::new("disk").unwrap();
        let disable = Mutation::SetAdminState { name, instance: None, admin_state: AdminState::Disabled };
        outside.apply(vec![disable]).await.unwrap();

        let changes: [(&str, Value); 5] = [
            ("/instances/0/stdio/command", json!("sh")),
            ("/instances/0/stdio/args/0", json!("--exec")),
            ("/instances/0/stdio/args/1", json!("other")),
            ("/env/HOME", json!("/tmp")),
            ("/instances/1", json!({"stdio": {"command": "disk-server", "args": ["--token", "abc"]}})),
        ];
        for (place, value) in changes {
            let mut changed = seen.clone();
            *changed.pointer_mut(place).unwrap() = value;
            let refused = put(&outside, changed).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Forbidden, "{place}: {refused}");
        }
        let mut added = seen.clone();
        added["env"]["LD_PRELOAD"] = json!("/x.so");
        assert_eq!(put(&outside, added).await.unwrap_err().kind(), ErrorKind::Forbidden);
    }
}
