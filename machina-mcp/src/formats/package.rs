//! The command that starts a package of a `server.json`: which launcher, and the
//! arguments and variables that the publisher describes. A value that the user
//! must give becomes a reference to an environment variable.

use std::collections::BTreeMap;

use machina_core::{Endpoint, Sensitive, SensitiveMap, ServiceName, StdioEndpoint};
use serde_json::{Map, Value};

use super::entry::{Entry, kind};
use super::note::field;
use super::placeholder::{can_be_default, reference, variable_name};

/// The longest value that is made of a template, in bytes.
const FILLED_MAX: usize = 64 * 1024;

/// What the names of variables begin with, so that the `path` of one server is
/// neither that of another nor `PATH`.
#[derive(Debug)]
pub(super) struct Scope(String);

impl Scope {
    pub(super) fn of(name: &ServiceName) -> Self {
        let name = name.as_str();
        Self::named(name.rsplit('/').next().unwrap_or(name))
    }

    /// That of a service whose name has this as its last part.
    pub(super) fn named(last: &str) -> Self {
        Self(variable_name(last))
    }

    pub(super) fn variable(&self, name: &str) -> String {
        format!("{}_{}", self.0, variable_name(name))
    }
}

/// A package and how it is to be started.
struct Package {
    registry: String,
    identifier: String,
    version: String,
    hint: Option<String>,
    variables: Vec<String>,
    runtime_arguments: Vec<String>,
    arguments: Vec<String>,
}

pub(super) fn read(entry: &mut Entry<'_>, scope: &Scope) -> Option<Endpoint> {
    let env = pairs(entry, "environmentVariables", scope);
    let package = Package {
        registry: entry.text("registryType").unwrap_or_default(),
        identifier: entry.text("identifier").unwrap_or_default(),
        version: entry.text("version").unwrap_or_default(),
        hint: entry.text("runtimeHint"),
        variables: env.keys().cloned().collect(),
        runtime_arguments: arguments(entry, "runtimeArguments", scope),
        arguments: arguments(entry, "packageArguments", scope),
    };
    entry.skip(&["registryBaseUrl", "fileSha256"], "the launcher looks the package up and checks it");
    if !over_stdio(entry) {
        return None;
    }
    if package.identifier.is_empty() {
        entry.notes.error(entry.at("identifier"), "is missing: it is the name of the package");
        return None;
    }
    match package.command_line() {
        Ok((command, args)) => {
            let mut stdio = StdioEndpoint::new(command, args);
            stdio.env = env;
            Some(stdio.into())
        }
        Err(why) => {
            entry.notes.warn(&entry.path, format!("not imported: {why}"));
            None
        }
    }
}

/// Whether the package is spoken to on its standard streams.
fn over_stdio(entry: &mut Entry<'_>) -> bool {
    let Some(mut transport) = entry.nested("transport") else { return true };
    let stdio = transport.text("type").is_none_or(|word| word == "stdio");
    if !stdio {
        let path = transport.path.clone();
        let message = "a package that is started and then reached by an address is not imported: start it and give \
                       its address";
        transport.notes.warn(path, message);
        transport.skip(&["url", "headers", "variables"], "the package is not imported");
    }
    transport.finish();
    stdio
}

impl Package {
    fn command_line(self) -> Result<(String, Vec<String>), String> {
        let launcher = |usual: &str| self.hint.clone().unwrap_or_else(|| usual.to_owned());
        let mut args = self.runtime_arguments.clone();
        let command = match self.registry.as_str() {
            "npm" => {
                if launcher("npx") == "npx" && !args.iter().any(|arg| arg == "-y" || arg == "--yes") {
                    args.insert(0, "-y".to_owned());
                }
                args.push(self.versioned("@"));
                launcher("npx")
            }
            "pypi" => {
                let pipx = launcher("uvx") == "pipx";
                if pipx {
                    args.insert(0, "run".to_owned());
                }
                args.push(self.versioned(if pipx { "==" } else { "@" }));
                launcher("uvx")
            }
            "nuget" => {
                args.extend([self.versioned("@"), "--yes".to_owned()]);
                if !self.arguments.is_empty() {
                    args.push("--".to_owned());
                }
                launcher("dnx")
            }
            "oci" => {
                args.splice(0..0, ["run", "-i", "--rm"].map(str::to_owned));
                args.extend(self.variables.iter().flat_map(|name| ["-e".to_owned(), name.clone()]));
                args.push(self.image());
                launcher("docker")
            }
            "mcpb" => return Err("a bundle must be unpacked first; then import its manifest.json".to_owned()),
            _ => return Err("the type of its registry is not `npm`, `pypi`, `nuget` or `oci`".to_owned()),
        };
        args.extend(self.arguments);
        Ok((command, args))
    }

    fn versioned(&self, separator: &str) -> String {
        if self.version.is_empty() {
            return self.identifier.clone();
        }
        format!("{}{separator}{}", self.identifier, self.version)
    }

    /// The identifier of an image usually has its tag already.
    fn image(&self) -> String {
        let name = self.identifier.rsplit('/').next().unwrap_or_default();
        if name.contains([':', '@']) { self.identifier.clone() } else { self.versioned(":") }
    }
}

/// The arguments of a command line, in order.
fn arguments(entry: &mut Entry<'_>, key: &str, scope: &Scope) -> Vec<String> {
    let mut out = Vec::new();
    entry.each(key, |argument| {
        let named = argument.text("type").is_some_and(|form| form == "named");
        let name = argument.text("name").filter(|_| named);
        let hint = argument.text("valueHint");
        argument.skip(&["isRepeated"], "it is given once");
        let label = name.as_deref().or(hint.as_deref()).unwrap_or("argument").trim_start_matches('-');
        let value = input(argument, &scope.variable(label), scope, false);
        let flag = named && value.as_deref() == Some("");
        out.extend(name.filter(|_| value.is_some()));
        out.extend(value.filter(|_| !flag));
    });
    out
}

/// Environment variables or headers.
pub(super) fn pairs(entry: &mut Entry<'_>, key: &str, scope: &Scope) -> SensitiveMap {
    let env = key == "environmentVariables";
    let mut out = SensitiveMap::new();
    entry.each(key, |pair| {
        let Some(name) = pair.text("name") else {
            return pair.notes.error(pair.at("name"), "is missing");
        };
        let variable = if env { name.clone() } else { scope.variable(&name) };
        let value = input(pair, &variable, scope, env);
        out.extend(value.map(|value| (name, Sensitive::secret(value))));
    });
    out
}

/// What the publisher says of one value: the value, or a reference to `variable`
/// if the user has to give it; `None` if it can be left out and has no default.
fn input(entry: &mut Entry<'_>, variable: &str, scope: &Scope, settable: bool) -> Option<String> {
    let about = entry.text("description").unwrap_or_default();
    let secret = entry.flag("isSecret").unwrap_or_default();
    let required = entry.flag("isRequired").unwrap_or_default();
    let default = entry.text("default").filter(|_| !secret);
    let variables = entry.table("variables").unwrap_or_default();
    entry.skip(&["format", "choices", "placeholder"], "the value is taken as it is given");
    if let Some(template) = entry.text("value") {
        return Some(fill(entry, &template, variables, scope));
    }
    match default {
        Some(default) if settable && can_be_default(&default) => Some(reference(variable, Some(&default))),
        Some(default) => Some(default),
        None if required => {
            entry.notes.warn(&entry.path, format!("set the environment variable {variable} ({about})"));
            Some(reference(variable, None))
        }
        None => {
            entry.notes.info(&entry.path, format!("is optional and left out ({about})"));
            None
        }
    }
}

/// `template` with each `{name}` out of `variables` replaced. What takes its place
/// is not looked through again, so that no short text becomes an endless one.
pub(super) fn fill(entry: &mut Entry<'_>, template: &str, variables: Map<String, Value>, scope: &Scope) -> String {
    let mut values = BTreeMap::new();
    let path = entry.at("variables");
    for (name, value) in variables {
        let path = field(&path, &name);
        let Value::Object(fields) = value else {
            entry.notes.error(path, format!("is {}, must be an object", kind(&value)));
            continue;
        };
        let mut variable = entry.inner(path, fields);
        let value = input(&mut variable, &scope.variable(&name), scope, false).unwrap_or_default();
        variable.finish();
        values.insert(name, value);
    }
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, name, after)) = next_variable(rest) {
        text.push_str(before);
        match values.get(name) {
            Some(value) => {
                text.push_str(value);
                rest = after;
            }
            None => {
                text.push('{');
                rest = &rest[before.len() + 1..];
            }
        }
        if text.len() > FILLED_MAX {
            entry
                .notes
                .error(&entry.path, format!("is longer than {FILLED_MAX} bytes when its variables are filled in"));
            return String::new();
        }
    }
    text.push_str(rest);
    text
}

/// What stands before the first name in braces, the name, and what comes after it.
fn next_variable(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    match rest.split_once('}') {
        Some((name, after)) => Some((before, name, after)),
        None => Some((before, "", rest)),
    }
}
