//! The package behind a command, where the command is one of the launchers that
//! fetch one: `npx -y a@1 …` is version 1 of the npm package `a`. A command of
//! any other form is no package, and is not guessed at.

use std::collections::BTreeSet;

use machina_core::{Sensitive, SensitiveMap, StdioEndpoint};
use serde_json::{Value, json};

use super::server_json_export::{Template, inputs, is_exact, template};

/// What a launcher is told to run.
#[derive(Debug, Default)]
struct Launched {
    registry: &'static str,
    identifier: String,
    version: Option<String>,
    /// What the launcher itself is told besides.
    runtime: Vec<String>,
    arguments: Vec<String>,
}

/// The package that `stdio` starts, if it starts one, with the variables of the
/// service and its own.
pub(super) fn package(env: &SensitiveMap, stdio: &StdioEndpoint, made_up: &BTreeSet<&str>) -> Option<Value> {
    let program = stdio.command.rsplit(['/', '\\']).next().unwrap_or_default();
    let args: Vec<_> = stdio.args.iter().map(|arg| arg.expose().to_owned()).collect();
    let mut env: SensitiveMap = env.iter().chain(&stdio.env).map(|(n, v)| (n.clone(), v.clone())).collect();
    let launched = match program {
        "npx" | "bunx" => npm(args),
        "uvx" => uvx(args),
        "pipx" => pipx(args),
        "dnx" => dnx(args),
        "docker" | "podman" => docker(args, &mut env),
        _ => None,
    }?;
    if launched.identifier.is_empty() || launched.identifier.contains(['$', '{', ' ']) {
        return None;
    }
    let mut package = json!({ "registryType": launched.registry, "identifier": launched.identifier });
    if let Some(version) = launched.version.filter(|version| is_exact(version)) {
        package["version"] = version.into();
    }
    package["runtimeHint"] = program.into();
    package["transport"] = json!({ "type": "stdio" });
    for (key, list) in [("runtimeArguments", launched.runtime), ("packageArguments", launched.arguments)] {
        if !list.is_empty() {
            package[key] = list.iter().map(|argument| positional(argument, made_up)).collect();
        }
    }
    if !env.is_empty() {
        package["environmentVariables"] = inputs(&env, made_up, &|name, variable| name == variable);
    }
    Some(package)
}

/// An argument as it stands: also a flag, since whoever reads it as a name and a
/// value apart need not put them together again in the same way.
fn positional(argument: &str, made_up: &BTreeSet<&str>) -> Value {
    let Template { text, variables } = template(argument, made_up);
    let mut positional = json!({ "type": "positional", "value": text });
    if !variables.is_empty() {
        positional["variables"] = variables.into();
    }
    positional
}

fn npm(args: Vec<String>) -> Option<Launched> {
    let mut rest = args.into_iter().skip_while(|arg| matches!(arg.as_str(), "-y" | "--yes" | "-q" | "--quiet"));
    let named = rest.next().filter(|named| !named.starts_with('-'))?;
    let (identifier, version) = split(&named, "@");
    Some(Launched { registry: "npm", identifier, version, arguments: rest.collect(), ..Launched::default() })
}

fn uvx(args: Vec<String>) -> Option<Launched> {
    let (mut from, mut runtime) = (None, Vec::new());
    let mut rest = args.into_iter();
    let named = loop {
        let arg = rest.next()?;
        match arg.as_str() {
            "--from" => from = Some(rest.next()?),
            "--with" | "--python" => runtime.extend([arg, rest.next()?]),
            option if option.starts_with('-') => return None,
            _ => break arg,
        }
    };
    let source = from.as_deref().unwrap_or(&named);
    let (identifier, version) = requirement(source)?;
    if from.is_some() && named != identifier {
        // A program of another name than its package cannot be told.
        return None;
    }
    let arguments = rest.collect();
    Some(Launched { registry: "pypi", identifier, version, runtime, arguments })
}

fn pipx(args: Vec<String>) -> Option<Launched> {
    let mut rest = args.into_iter();
    rest.next().filter(|word| word == "run")?;
    let (identifier, version) = requirement(&rest.next()?)?;
    Some(Launched { registry: "pypi", identifier, version, arguments: rest.collect(), ..Launched::default() })
}

fn dnx(args: Vec<String>) -> Option<Launched> {
    let mut rest = args.into_iter();
    let (identifier, version) = split(&rest.next().filter(|named| !named.starts_with('-'))?, "@");
    rest.next().filter(|word| word == "--yes")?;
    let arguments: Vec<_> = match rest.next() {
        None => Vec::new(),
        Some(word) if word == "--" => rest.collect(),
        Some(_) => return None,
    };
    Some(Launched { registry: "nuget", identifier, version, arguments, ..Launched::default() })
}

/// Options of `docker run` that take no value of their own.
const DOCKER_SWITCHES: [&str; 6] = ["-i", "-t", "-it", "--rm", "--interactive", "--init"];

fn docker(args: Vec<String>, env: &mut SensitiveMap) -> Option<Launched> {
    let mut rest = args.into_iter();
    rest.next().filter(|word| word == "run")?;
    let mut runtime = Vec::new();
    let identifier = loop {
        let arg = rest.next()?;
        match arg.as_str() {
            "-i" | "--rm" | "--interactive" => {}
            "-e" | "--env" => {
                let assigned = rest.next()?;
                match assigned.split_once('=') {
                    // What is passed on has its value among the variables of the command.
                    None => drop(env.entry(assigned).or_insert_with_key(|name| reference_to(name))),
                    Some(_) => runtime.extend([arg, assigned]),
                }
            }
            switch if DOCKER_SWITCHES.contains(&switch) => runtime.push(arg),
            option if option.starts_with("--") && option.contains('=') => runtime.push(arg),
            option if option.starts_with('-') => runtime.extend([arg, rest.next()?]),
            _ => break arg,
        }
    };
    Some(Launched { registry: "oci", identifier, version: None, runtime, arguments: rest.collect() })
}

fn reference_to(name: &str) -> Sensitive {
    Sensitive::secret(format!("${{env:{name}}}"))
}

/// A name and the version after `separator`, where there is one. A scope such as
/// `@modelcontextprotocol/` is part of the name.
fn split(text: &str, separator: &str) -> (String, Option<String>) {
    match text.rsplit_once(separator).filter(|(name, _)| !name.is_empty()) {
        Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// A Python package, at one version or any; `None` for anything else that pip takes.
fn requirement(text: &str) -> Option<(String, Option<String>)> {
    let (name, version) = split(text, if text.contains("==") { "==" } else { "@" });
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().all(plain).then_some((name, version))
}
