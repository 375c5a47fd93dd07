//! Requests that lead to a service: which one is meant, and what it answers.

use std::sync::Arc;

use machina_core::{CallOptions, Era, Error, ServiceName, ToolCall, UpstreamRequest};
use serde_json::{Value, json};

use super::aliases;
use super::audience::Audience;
use super::definitions::{self, MetaTool};
use super::documents::{self, MARKDOWN};
use super::flat::Entry;
use super::http_params::Repeated;
use super::offer::Offer;
use super::prompts::Prompt;
use super::protocol::{FRESH, Reply};
use super::resources::{Meant, Resource};
use super::rpc::{Fault, INVALID_PARAMS, Object, shown};
use super::{errors, tools, upstream};
use crate::client::param_headers::ParamHeader;

/// A request of a host, and its circumstances.
pub(super) struct Asked<'a> {
    pub(super) audience: &'a Audience,
    pub(super) offer: &'a Arc<Offer>,
    pub(super) era: Era,
    pub(super) options: &'a CallOptions,
    /// The arguments that are repeated in headers, where the host does so.
    pub(super) repeated: Option<&'a Repeated>,
}

/// What the name of a tool stands for.
enum Named {
    Meta(MetaTool),
    /// A tool of a service, to be called without arguments yet.
    Upstream {
        call: ToolCall,
        marked: Option<Arc<[ParamHeader]>>,
    },
}

impl Named {
    fn of(entry: &Entry) -> Self {
        let (service, tool) = (entry.service.clone(), entry.tool.name().clone());
        let call = ToolCall { service, tool, arguments: Object::new() };
        Self::Upstream { call, marked: entry.marked.clone() }
    }
}

impl Asked<'_> {
    /// `tools/call`.
    pub(super) async fn call_tool(&self, mut params: Object) -> Result<Reply, Fault> {
        let name = text(&params, "name")?.to_owned();
        let tool = self.tool_named(&name)?;
        let arguments = match params.remove("arguments") {
            None | Some(Value::Null) => Object::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(Fault::new(INVALID_PARAMS, "arguments: must be an object")),
        };
        let result = match tool {
            Named::Meta(tool) => {
                let arguments = aliases::renamed(&name, arguments);
                let result = tools::run(tool, self.audience, arguments, self.options).await;
                result.unwrap_or_else(|error| errors::tool_result(&error))
            }
            Named::Upstream { call, marked } => {
                if let (Some(marked), Some(repeated)) = (&marked, self.repeated) {
                    repeated.check(marked, &arguments)?;
                }
                let call = ToolCall { arguments, ..call };
                let result = upstream::carry(self.audience.scoped(), &call, self.options).await;
                result.or_else(|error| errors::upstream_result(&error, self.era))?
            }
        };
        Ok(Reply::new(result))
    }

    fn tool_named(&self, name: &str) -> Result<Named, Fault> {
        let (tool, what_there_is) = match self.offer.is_flat(self.audience) {
            false => (MetaTool::of(name).map(Named::Meta), format!("there are {}", definitions::NAMES)),
            true => {
                let tools = self.offer.tools(self.audience);
                (tools.resolve(name).map(Named::of), "`tools/list` says what there is now".to_owned())
            }
        };
        let missing =
            || Fault::new(INVALID_PARAMS, format!("name: there is no tool `{}`; {what_there_is}", shown(name)));
        tool.ok_or_else(missing)
    }

    /// `prompts/get`.
    pub(super) async fn get_prompt(&self, mut params: Object) -> Result<Reply, Fault> {
        let Prompt { service, name } = self.prompt_named(text(&params, "name")?)?;
        let mut passed = Object::from_iter([("name".to_owned(), name.into())]);
        if let Some(arguments) = params.remove("arguments") {
            passed.insert("arguments".to_owned(), arguments);
        }
        self.ask(&service, "prompts/get", passed).await.map(Reply::new)
    }

    fn prompt_named(&self, name: &str) -> Result<Prompt, Fault> {
        self.offer.prompts(self.audience).resolve(name).cloned().ok_or_else(|| {
            let why = format!("name: there is no prompt `{}`; `prompts/list` says what there is now", shown(name));
            Fault::new(INVALID_PARAMS, why)
        })
    }

    /// `resources/read`.
    pub(super) async fn read_resource(&self, params: &Object) -> Result<Reply, Fault> {
        let uri = text(params, "uri")?;
        let result = match self.meant(uri)? {
            Meant::Document(name) => {
                let document = documents::document(self.audience.scoped(), &name).await;
                let text = document.map_err(|error| self.fault_of(uri, &error))?;
                json!({"contents": [{"uri": uri, "mimeType": MARKDOWN, "text": text}]})
            }
            Meant::Resource(Resource { service, uri: own }) => {
                let passed = Object::from_iter([("uri".to_owned(), own.into())]);
                let answer = self.ask(&service, "resources/read", passed).await;
                Value::Object(answer.map_err(|fault| about(uri, fault))?)
            }
        };
        Ok(Reply::cached(result, FRESH))
    }

    /// `completion/complete`.
    pub(super) async fn complete(&self, mut params: Object) -> Result<Reply, Fault> {
        let mut reference = match params.remove("ref") {
            Some(Value::Object(reference)) => reference,
            _ => return Err(Fault::new(INVALID_PARAMS, "ref: must be an object")),
        };
        let (service, key, own) = match reference.get("type").and_then(Value::as_str) {
            Some("ref/prompt") => {
                let Prompt { service, name } = self.prompt_named(text(&reference, "name")?)?;
                (service, "name", name)
            }
            Some("ref/resource") => match self.meant(text(&reference, "uri")?)? {
                Meant::Resource(Resource { service, uri }) => (service, "uri", uri),
                Meant::Document(_) => return Ok(nothing_to_complete()),
            },
            _ => return Err(Fault::new(INVALID_PARAMS, "ref.type: must be \"ref/prompt\" or \"ref/resource\"")),
        };
        if !self.offer.prompts(self.audience).completes(Some(&service)) {
            return Ok(nothing_to_complete());
        }
        reference.insert(key.to_owned(), own.into());
        let mut passed = Object::from_iter([("ref".to_owned(), reference.into())]);
        for member in ["argument", "context"] {
            if let Some(value) = params.remove(member) {
                passed.insert(member.to_owned(), value);
            }
        }
        self.ask(&service, "completion/complete", passed).await.map(Reply::new)
    }

    fn meant(&self, uri: &str) -> Result<Meant, Fault> {
        let table = self.offer.resources(self.audience);
        table.meant(self.audience, uri).map_err(|error| self.fault_of(uri, &error))
    }

    async fn ask(&self, service: &ServiceName, method: &str, params: Object) -> Result<Object, Fault> {
        let request = UpstreamRequest { method: method.to_owned(), params };
        let result = upstream::ask(self.audience.scoped(), service, &request, self.options).await;
        result.map_err(|error| errors::fault(&error, self.era))
    }

    fn fault_of(&self, uri: &str, error: &Error) -> Fault {
        about(uri, errors::fault(error, self.era))
    }
}

/// The fault, with the uri as it was asked for.
fn about(uri: &str, mut fault: Fault) -> Fault {
    if let Some(data) = fault.data.as_mut().filter(|data| data.is_object()) {
        data["uri"] = uri.into();
    }
    fault
}

fn nothing_to_complete() -> Reply {
    let result = json!({"completion": {"values": [], "hasMore": false}});
    Reply::new(super::rpc::object(result))
}

/// A member that must be a text.
fn text<'a>(params: &'a Object, member: &str) -> Result<&'a str, Fault> {
    let wrong = || Fault::new(INVALID_PARAMS, format!("{member}: must be a string"));
    params.get(member).and_then(Value::as_str).ok_or_else(wrong)
}
