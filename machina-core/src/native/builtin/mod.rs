//! Native tools that come with Machina: a calculator, string utilities, and
//! transformations between JSON and CSV. Off until someone asks for them by name;
//! the same tools for `machina serve`, and for programs that embed it.
//!
//! Each is a plain function of its arguments, bounded in time and memory by the
//! size of what it is given. None reads a file, the network or the clock.

mod calculator;
mod expression;
mod strings;
mod transform;

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::tool::NativeTool;
use crate::connect::CallContext;
use crate::error::{Error, Result};
use crate::machina::Machina;
use crate::model::{Endpoint, ServiceSpec, ToolResult};

/// How many characters a text may have that a tool is given.
const TEXT_MAX: usize = 1_000_000;

/// A service that comes with Machina.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Builtin {
    /// `calculator`: arithmetic, by operation and by expression.
    Calculator,
    /// `strings`: case, counting, replacing, splitting.
    Strings,
    /// `transform`: JSON to CSV and back, and a look into JSON.
    Transform,
}

impl Builtin {
    /// Each of them.
    pub const ALL: &'static [Self] = &[Self::Calculator, Self::Strings, Self::Transform];

    /// The name of the service.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calculator => "calculator",
            Self::Strings => "strings",
            Self::Transform => "transform",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Calculator => "Arithmetic: single operations, and whole expressions.",
            Self::Strings => "Text: letter case, counting, replacing, splitting, reversing.",
            Self::Transform => "Data: JSON to CSV, CSV to JSON, and values out of JSON.",
        }
    }

    const fn tags(self) -> &'static [&'static str] {
        match self {
            Self::Calculator => &["math", "numeric", "arithmetic"],
            Self::Strings => &["text"],
            Self::Transform => &["data", "json", "csv"],
        }
    }

    /// Its tools, for a service of any name.
    #[must_use]
    pub fn tools(self) -> Vec<NativeTool> {
        match self {
            Self::Calculator => calculator::tools(),
            Self::Strings => strings::tools(),
            Self::Transform => transform::tools(),
        }
    }

    /// Serves it from this process: attaches its tools, and declares the service
    /// if it is not declared yet. What an operator changed about it stays.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when another service has its name;
    /// whatever [`NativeService::register_as`](crate::NativeService::register_as) says.
    pub async fn serve(self, machina: &Machina) -> Result<()> {
        let native = machina.native(self.as_str())?;
        let declared = machina.get(self.as_str());
        let instances = declared.iter().flat_map(|view| view.instances()).map(|(instance, _)| &instance.endpoint);
        let mut kinds = instances.map(Endpoint::kind).peekable();
        if kinds.peek().is_some() && kinds.all(|kind| kind != Endpoint::InProcess.kind()) {
            let message = format!(
                "a service named `{self}` is declared that is not the built-in one: rename it, or leave the built-in \
                 one off"
            );
            return Err(Error::conflict(message).with(|context| context.service = Some(self.to_string())));
        }
        self.tools().into_iter().try_for_each(|tool| native.put(tool))?;
        let registered =
            if declared.is_some() { native.register().await } else { native.register_as(self.spec()?).await };
        registered.map(drop)
    }

    fn spec(self) -> Result<ServiceSpec> {
        ServiceSpec::from_value(json!({"name": self.as_str(), "description": self.description(), "tags": self.tags(),
            "build_type": "other", "origin": "internal", "version": env!("CARGO_PKG_VERSION")}))
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Builtin {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|one| one.as_str() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|one| one.as_str()).collect();
            Error::invalid_field("builtin", format!("must be of {}, is `{}`", names.join(", "), name.escape_debug()))
        })
    }
}

/// A tool that reads its arguments, does what it does at once, and changes nothing.
fn pure<A, F>(name: &str, description: &str, properties: Value, required: &[&str], function: F) -> NativeTool
where
    A: DeserializeOwned + Send + 'static,
    F: Fn(A) -> Result<ToolResult, String> + Send + Sync + 'static,
{
    let schema =
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    NativeTool::new(name, schema, move |arguments: A, _: CallContext| std::future::ready(function(arguments)))
        .description(description)
        .read_only()
        .idempotent()
        .annotation("openWorldHint", false.into())
}

/// The schema of an argument that is a text.
fn text(description: &str) -> Value {
    json!({"type": "string", "maxLength": TEXT_MAX, "description": description})
}

#[cfg(test)]
mod tests;
