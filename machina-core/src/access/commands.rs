//! What someone outside the process may not have it do on their behalf: start a
//! command, read its environment, carry a secret elsewhere. To register a command
//! is to run it as the user that runs the registry, and an address with
//! `${NAME}` in it is told what that variable holds.

use super::{Principal, Role};
use crate::config::AccessConfig;
use crate::error::{Error, Result};
use crate::model::{Endpoint, Instance, SensitiveMap, Service};
use crate::view::{Delta, View};

/// # Errors
/// [`Forbidden`](crate::ErrorKind::Forbidden) when a remote principal adds or
/// changes a command (its arguments, directory and environment included) or an
/// endpoint with a placeholder, or moves an endpoint together with its secrets,
/// and the configuration does not allow that; commands of a template only an
/// administrator may register.
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
        for (index, instance) in service.spec.instances.iter().enumerate() {
            if principal.role >= Role::Admin && is_made_by_template(known, service, instance, config) {
                continue;
            }
            let Some(what) = reached_for(known, service, instance) else { continue };
            let (name, kind) = (service.name(), instance.endpoint.kind());
            let message = format!(
                "instances[{index}].{kind} of `{name}` {what}; declare it in a file that the server imports, describe \
                 it in access.command_templates, or set access.allow_stdio_registration = true to allow anything"
            );
            return Err(Error::forbidden(message).with(|context| context.service = Some(name.to_string())));
        }
    }
    Ok(())
}

/// Whether an instance is a command that the operator has described. The environment
/// of its service is none of it, nor is a secret that was meant for another command.
fn is_made_by_template(before: Option<&Service>, after: &Service, instance: &Instance, config: &AccessConfig) -> bool {
    let Endpoint::Stdio(stdio) = &instance.endpoint else { return false };
    let fits = config.command_templates.iter().any(|template| template.makes(stdio));
    let secrets = before.filter(|_| fits).map(|before| before.spec.secrets()).unwrap_or_default();
    let moved = stdio.args.iter().any(|arg| secrets.values().any(|secret| secret == arg.expose()));
    fits && after.spec.env.is_empty() && !moved
}

/// What an instance of `after` would have the process do that it did not do
/// before, and that may not be asked for from outside.
fn reached_for(before: Option<&Service>, after: &Service, instance: &Instance) -> Option<&'static str> {
    let known = before.and_then(|before| before.instance(instance.id)).map(|known| &known.endpoint);
    let same = known == Some(&instance.endpoint);
    let same_env = before.is_some_and(|before| before.spec.env == after.spec.env);
    match &instance.endpoint {
        Endpoint::Stdio(_) if same && same_env => None,
        Endpoint::Stdio(_) => {
            Some("is a command, and from outside no command may be registered or changed that no template makes")
        }
        _ if same => None,
        endpoint if endpoint.reaches_into_process() => {
            Some("has a placeholder, and from outside nothing may be registered that reads the server's environment")
        }
        endpoint if before.is_some_and(|before| moves_secrets(before, endpoint)) => Some(
            "takes its secrets to another address, and they may not have been meant for it: send them in an instance \
             without `id`",
        ),
        _ => None,
    }
}

/// Whether a header that is stored goes to an address that it did not go to.
fn moves_secrets(before: &Service, after: &Endpoint) -> bool {
    let headers = |endpoint: &Endpoint| match endpoint {
        Endpoint::Http(http) | Endpoint::Sse(http) => Some((http.url.clone(), http.headers.clone())),
        _ => None,
    };
    let Some((url, after)) = headers(after) else { return false };
    let stored: Vec<_> = before.spec.instances.iter().filter_map(|instance| headers(&instance.endpoint)).collect();
    after.iter().any(|(name, value)| {
        let known = |(_, headers): &&(_, SensitiveMap)| headers.get(name) == Some(value);
        let mut places = stored.iter().filter(known).peekable();
        places.peek().is_some() && places.all(|(place, _)| *place != url)
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
        let disable = Mutation::SetAdminState { name, instance: None, admin_state: AdminState::Disabled, reason: None };
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

    #[tokio::test]
    async fn the_environment_and_stored_secrets_do_not_get_out() {
        let machina = registry(false).await;
        let web = |url: &str, key: &str| json!({"name": "web", "instances": [{"http": {"url": url, "headers": {"X-Key": key}}}]});
        let outside = outside(&machina);
        for (url, key) in [("http://a.example/?k=${env:KEY}", "k"), ("http://a.example/", "Bearer ${KEY}")] {
            let refused = put(&outside, web(url, key)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Forbidden);
            assert!(refused.message().contains("placeholder"), "{refused}");
            put(machina.system(), web(url, key)).await.unwrap();
            let seen = serde_json::to_value(machina.system().get("web").await.unwrap()).unwrap();
            put(&outside, seen).await.unwrap();
            machina.deregister("web").await.unwrap();
        }
        put(&outside, web("http://a.example/", "hunter2")).await.unwrap();
        let mut seen = serde_json::to_value(machina.system().get("web").await.unwrap()).unwrap();
        seen["instances"][0]["http"]["url"] = json!("http://evil.example/");
        let refused = put(&outside, seen.clone()).await.unwrap_err();
        assert!(refused.message().contains("secrets to another address"), "{refused}");
        seen["instances"][0]["http"]["headers"]["X-Key"] = json!("another");
        put(&outside, seen).await.unwrap();
    }
}
