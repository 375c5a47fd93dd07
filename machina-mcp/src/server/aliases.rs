//! The names that earlier gateways gave the tools of meta mode, and the names of
//! their arguments.

use serde_json::Value;

use super::definitions::MetaTool;
use super::rpc::Object;

/// Each with the tool that it stands for.
pub(super) const ALIASES: [(&str, MetaTool); 3] = [
    ("list_available_services", MetaTool::ListServices),
    ("list_available_tools", MetaTool::ListTools),
    ("call_service_tool", MetaTool::CallTool),
];

/// The arguments of [`MetaTool::CallTool`], in order: the tool's own come last.
const OF_CALL: [&str; 3] = ["service", "tool", "arguments"];

/// The arguments of the alias `name` under the names that the tool itself has.
/// Beside service and tool, `call_service_tool` may be given the arguments of
/// the tool side by side.
pub(super) fn renamed(name: &str, mut arguments: Object) -> Object {
    let Some((_, tool)) = ALIASES.iter().find(|(alias, _)| *alias == name) else { return arguments };
    for (earlier, now) in [
        ("service_name", "service"),
        ("tool_name", "tool"),
        ("parameters", "arguments"),
        ("args", "arguments"),
        ("kwargs", "arguments"),
    ] {
        let wrapped = now != "arguments" || arguments.get(earlier).is_some_and(Value::is_object);
        let known = *tool == MetaTool::CallTool || now == "service";
        if known
            && wrapped
            && !arguments.contains_key(now)
            && let Some(value) = arguments.shift_remove(earlier)
        {
            arguments.insert(now.to_owned(), value);
        }
    }
    if *tool != MetaTool::CallTool || arguments.contains_key("arguments") {
        return arguments;
    }
    let (mut call, own): (Object, Object) = arguments.into_iter().partition(|(key, _)| OF_CALL.contains(&&**key));
    call.insert("arguments".to_owned(), own.into());
    call
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::rpc::object;
    use serde_json::json;

    #[test]
    fn arguments_have_the_names_of_today() {
        let call = json!({"service": "web", "tool": "fetch", "arguments": {"url": "u", "n": 1}});
        for earlier in [
            call.clone(),
            json!({"service_name": "web", "tool_name": "fetch", "parameters": {"url": "u", "n": 1}}),
            json!({"service": "web", "tool": "fetch", "args": {"url": "u", "n": 1}}),
            json!({"service": "web", "tool": "fetch", "kwargs": {"url": "u", "n": 1}}),
            json!({"service": "web", "tool": "fetch", "url": "u", "n": 1}),
        ] {
            assert_eq!(Value::Object(renamed("call_service_tool", object(earlier.clone()))), call, "{earlier}");
        }
        let own = renamed("call_service_tool", object(json!({"service": "s", "tool": "t", "args": "-l"})));
        assert_eq!(own["arguments"], json!({"args": "-l"}), "an argument of the tool itself");
        assert_eq!(renamed("call_service_tool", Object::new())["arguments"], json!({}));
        let list = renamed("list_available_tools", object(json!({"service_name": "web", "limit": 1, "args": {}})));
        assert_eq!(Value::Object(list), json!({"limit": 1, "args": {}, "service": "web"}));
        let plain = object(json!({"service_name": "web", "url": "u"}));
        assert_eq!(renamed("call_tool", plain.clone()), plain, "no alias");
    }
}
