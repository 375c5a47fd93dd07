//! A service as any host could be told of it: its first usable instance, with a
//! reference in the place of every secret. The references are those of a record
//! (`${env:NAME}`); each host's own form comes later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use machina_core::{AdminState, Endpoint, HttpEndpoint, Instance, Sensitive, ServiceSpec, StdioEndpoint};

use super::note::{Notes, element, field};
use super::placeholder::{is_name, reference, variable_name};

/// What a host is to be told.
#[derive(Debug)]
pub(super) struct HostEntry {
    pub(super) name: String,
    pub(super) disabled: bool,
    pub(super) call_timeout: Option<Duration>,
    pub(super) startup_timeout: Option<Duration>,
    pub(super) way: Way,
}

#[derive(Debug)]
pub(super) enum Way {
    Program { command: String, args: Vec<String>, env: BTreeMap<String, String>, cwd: Option<String> },
    Address { sse: bool, url: String, headers: BTreeMap<String, String> },
}

/// The variables that stand for secrets, over all services of one export.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    values: BTreeMap<String, String>,
}

impl Secrets {
    /// The names of all variables that were made up for a secret.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.values.keys().map(String::as_str).collect()
    }

    /// A variable for `secret`: `name`, unless that stands for another one.
    fn claim(&mut self, service: &str, name: &str, secret: &Sensitive) -> String {
        let scoped = format!("{}_{name}", variable_name(service));
        let free = |name: &String, values: &BTreeMap<String, String>| {
            values.get(name).is_none_or(|value| value == secret.expose())
        };
        let numbered = (2..).map(|number| format!("{scoped}_{number}"));
        let mut candidates = [name.to_owned(), scoped.clone()].into_iter().chain(numbered);
        let name = candidates.find(|name| free(name, &self.values)).unwrap_or(scoped);
        self.values.insert(name.clone(), secret.expose().to_owned());
        name
    }

    /// `value` as it may be written at `path`: itself, or a reference to a
    /// variable called `name`, with a note to set it.
    pub(super) fn written(
        &mut self,
        value: &Sensitive,
        service: &str,
        name: &str,
        path: &str,
        notes: &mut Notes,
    ) -> String {
        if !value.is_secret() && !value.is_mask() {
            return value.expose().to_owned();
        }
        if !value.is_mask() && only_refers(value.expose()) {
            return value.expose().to_owned();
        }
        let name = self.claim(service, name, value);
        notes.warn(path, format!("a secret is not written: set {name} to it"));
        reference(&name, None)
    }
}

impl HostEntry {
    /// `None`, with a note, if no host can be told of the service.
    pub(super) fn of(spec: &ServiceSpec, secrets: &mut Secrets, notes: &mut Notes) -> Option<Self> {
        let path = spec.name.as_str();
        let Some(instance) = usable(spec) else {
            notes.error(path, "has no instance that a host can be told of");
            return None;
        };
        let way = match &instance.endpoint {
            Endpoint::Stdio(stdio) => program(spec, stdio, secrets, notes),
            Endpoint::Http(http) => address(spec, http, false, secrets, notes),
            Endpoint::Sse(http) => address(spec, http, true, secrets, notes),
            other => {
                let message =
                    format!("is reached by {}, which no host can do: connect the host to Machina", other.kind());
                notes.error(path, message);
                return None;
            }
        };
        if spec.instances.len() > 1 {
            notes.info(path, "has more than one instance; the first that is usable is written");
        }
        Some(Self {
            name: path.to_owned(),
            disabled: spec.admin_state != AdminState::Enabled || instance.admin_state != AdminState::Enabled,
            call_timeout: spec.routing_policy.timeout,
            startup_timeout: spec.health_policy.startup_grace,
            way,
        })
    }
}

/// The first instance in use that a host can reach, or else the first in use, or
/// else the first of all.
fn usable(spec: &ServiceSpec) -> Option<&Instance> {
    let reachable =
        |instance: &&Instance| matches!(instance.endpoint, Endpoint::Stdio(_) | Endpoint::Http(_) | Endpoint::Sse(_));
    let in_use = |instance: &&Instance| instance.admin_state.admits_calls();
    let all = || spec.instances.iter();
    all().find(|i| in_use(i) && reachable(i)).or_else(|| all().find(reachable)).or_else(|| all().next())
}

fn program(spec: &ServiceSpec, stdio: &StdioEndpoint, secrets: &mut Secrets, notes: &mut Notes) -> Way {
    let service = spec.name.as_str();
    let mut env = BTreeMap::new();
    for (name, value) in spec.env.iter().chain(&stdio.env) {
        let path = field(&field(service, "env"), name);
        env.insert(name.clone(), secrets.written(value, service, &variable_name(name), &path, notes));
    }
    let args = arguments(stdio, service, secrets, notes);
    let cwd = stdio.cwd.as_ref().map(|path| path.to_string_lossy().into_owned());
    Way::Program { command: stdio.command.clone(), args, env, cwd }
}

/// The arguments of a program, each as it may be written.
pub(super) fn arguments(stdio: &StdioEndpoint, service: &str, secrets: &mut Secrets, notes: &mut Notes) -> Vec<String> {
    let mut args = Vec::new();
    let mut flag = None;
    for (index, arg) in stdio.args.iter().enumerate() {
        let path = element(&field(service, "args"), index);
        let text = arg.expose();
        let name = match (text.split_once('='), flag) {
            (Some((name, _)), _) if text.starts_with('-') => variable_name(name),
            (_, Some(flag)) => variable_name(flag),
            _ => format!("ARG_{}", index + 1),
        };
        let name = format!("{}_{name}", variable_name(service));
        flag = Some(text).filter(|text| text.starts_with("--") && !text.contains('='));
        args.push(match text.split_once('=') {
            Some((option, value)) if arg.is_secret() && text.starts_with('-') => {
                let value = secrets.written(&Sensitive::secret(value), service, &name, &path, notes);
                format!("{option}={value}")
            }
            _ => secrets.written(arg, service, &name, &path, notes),
        });
    }
    args
}

fn address(spec: &ServiceSpec, http: &HttpEndpoint, sse: bool, secrets: &mut Secrets, notes: &mut Notes) -> Way {
    let service = spec.name.as_str();
    let scoped = |name: &str| format!("{}_{}", variable_name(service), variable_name(name));
    let mut headers = BTreeMap::new();
    for (name, value) in &http.headers {
        let path = field(&field(service, "headers"), name);
        headers.insert(name.clone(), secrets.written(value, service, &scoped(name), &path, notes));
    }
    let url = secrets.written(&http.url, service, &scoped("url"), &field(service, "url"), notes);
    Way::Address { sse, url, headers }
}

/// Whether `text` holds nothing but references without a default, and the word
/// that a header begins with.
fn only_refers(text: &str) -> bool {
    let words = ["", "bearer", "basic", "token", "apikey"];
    let pieces = pieces(text);
    let fine = |piece: &Piece<'_>| match piece {
        Piece::Text(text) => words.contains(&text.trim().to_ascii_lowercase().as_str()),
        Piece::Variable { default, .. } => default.is_none(),
    };
    pieces.iter().all(fine)
}

/// A part of a text with placeholders.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Variable { name: &'a str, default: Option<&'a str> },
}

/// `text` taken apart at its references to environment variables.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let (mut done, mut from) = (0, 0);
    while let Some(start) = text[from..].find("${").map(|at| at + from) {
        let Some(end) = text[start..].find('}').map(|at| at + start) else { break };
        let inner = &text[start + 2..end];
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
        let name = name.strip_prefix("env:").unwrap_or(name);
        from = end + 1;
        if is_name(name) {
            found.extend((done < start).then(|| Piece::Text(&text[done..start])));
            found.push(Piece::Variable { name, default });
            done = from;
        }
    }
    found.extend((done < text.len()).then(|| Piece::Text(&text[done..])));
    found
}
