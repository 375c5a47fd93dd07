//! How an instance is reached.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::sensitive::{Sensitive, SensitiveMap, classify_args, is_secret_url};
use crate::error::Problem;

/// How to reach an instance. In JSON the variant is the name of a field of the
/// instance: `{"http": {"url": "https://time.example/mcp"}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// A child process that speaks MCP on its standard streams.
    Stdio(StdioEndpoint),
    /// Streamable HTTP.
    Http(HttpEndpoint),
    /// The HTTP + SSE transport of MCP 2024-11-05.
    Sse(HttpEndpoint),
    /// MCP over a WebSocket.
    WebSocket(UrlEndpoint),
    /// An HTTP API described by an OpenAPI document.
    OpenApi(OpenApiEndpoint),
    /// A part of the host program.
    InProcess,
}

/// A command that Machina starts. No shell is involved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StdioEndpoint {
    /// The program: a path, or a name that is looked up on `PATH`.
    pub command: String,
    /// Its arguments; those that carry a secret are not shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub args: Vec<Sensitive>,
    /// Environment variables on top of the few that every child gets.
    #[serde(skip_serializing_if = "SensitiveMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub env: SensitiveMap,
    /// The working directory; Machina's own by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub cwd: Option<PathBuf>,
}

/// An HTTP address with headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HttpEndpoint {
    /// The address, `http` or `https`; placeholders such as `${env:HOST}` are
    /// filled in when the connection is opened.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub url: Sensitive,
    /// Headers sent with every request, such as `Authorization`.
    #[serde(skip_serializing_if = "SensitiveMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub headers: SensitiveMap,
}

/// An address and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UrlEndpoint {
    /// The address, `ws` or `wss`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub url: Sensitive,
}

/// An HTTP API whose operations become tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenApiEndpoint {
    /// Where the OpenAPI document is.
    pub document: String,
    /// The address that the document's paths are relative to.
    pub base_url: String,
}

impl StdioEndpoint {
    /// An endpoint for `command` with `args`.
    pub fn new(command: impl Into<String>, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            command: command.into(),
            args: classify_args(args.into_iter().map(Into::into).collect()),
            ..Self::default()
        }
    }

    /// The same with one more environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), Sensitive::secret(value));
        self
    }
}

impl HttpEndpoint {
    /// An endpoint at `url` without headers.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: shown_unless_secret(url.into()), headers: SensitiveMap::new() }
    }
}

fn shown_unless_secret(url: String) -> Sensitive {
    if is_secret_url(&url) { Sensitive::secret(url) } else { Sensitive::plain(url) }
}

/// Where a URL leads, without what may be secret in it: user information and the
/// values of its query.
fn place(url: &Sensitive) -> String {
    let Some(mut parsed) = Url::parse(url.expose()).ok().filter(|_| url.is_secret()) else {
        return url.shown().to_owned();
    };
    let hidden = parsed.query().is_some() || !parsed.username().is_empty() || parsed.password().is_some();
    // Both fail only for addresses that cannot have user information.
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    parsed.set_query(None);
    parsed.set_fragment(None);
    if hidden { format!("{parsed} ({})", Sensitive::MASK) } else { parsed.to_string() }
}

impl Endpoint {
    /// The name of the variant, as in JSON: `stdio`, `http`, …
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Stdio(_) => "stdio",
            Self::Http(_) => "http",
            Self::Sse(_) => "sse",
            Self::WebSocket(_) => "websocket",
            Self::OpenApi(_) => "openapi",
            Self::InProcess => "in_process",
        }
    }

    /// Where the instance runs, short enough for a table, without any secret.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::Stdio(stdio) => {
                let args = stdio.args.iter().map(Sensitive::shown);
                std::iter::once(stdio.command.as_str()).chain(args).collect::<Vec<_>>().join(" ")
            }
            Self::Http(http) | Self::Sse(http) => place(&http.url),
            Self::WebSocket(socket) => place(&socket.url),
            Self::OpenApi(api) => api.base_url.clone(),
            Self::InProcess => "in process".to_owned(),
        }
    }

    /// The host that it is reached at, as far as it is at one and its address says so.
    pub(crate) fn host(&self) -> Option<Host<String>> {
        let address = match self {
            Self::Http(http) | Self::Sse(http) => http.url.expose(),
            Self::WebSocket(socket) => socket.url.expose(),
            Self::OpenApi(api) => &api.base_url,
            Self::Stdio(_) | Self::InProcess => return None,
        };
        let address = Url::parse(address).ok()?;
        address.host().map(|host| host.to_owned())
    }

    /// Appends what is wrong with the endpoint to `problems`.
    pub(crate) fn check(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut wrong = |field: &str, detail: &str| {
            problems.push(Problem { field: format!("{path}.{field}"), detail: detail.to_owned() });
        };
        match self {
            Self::Stdio(stdio) => {
                if stdio.command.trim().is_empty() {
                    wrong("stdio.command", "must name a program");
                }
                let strings = stdio.args.iter().chain(stdio.env.values()).map(Sensitive::expose);
                if strings.chain([stdio.command.as_str()]).any(|text| text.contains('\0')) {
                    wrong("stdio", "must not contain NUL characters");
                }
                if let Some(name) = stdio.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
                    wrong("stdio.env", &format!("`{name}` is not the name of an environment variable"));
                }
            }
            Self::Http(http) => check_http(http, "http", &mut wrong),
            Self::Sse(http) => check_http(http, "sse", &mut wrong),
            Self::WebSocket(socket) => check_url(&socket.url, &["ws", "wss"], "websocket.url", &mut wrong),
            Self::OpenApi(api) => {
                check_url(&Sensitive::plain(&api.base_url), &["http", "https"], "openapi.base_url", &mut wrong);
                if api.document.is_empty() {
                    wrong("openapi.document", "must be an address or a path");
                }
            }
            Self::InProcess => {}
        }
    }

    /// Whether to register it is to have a say in the process itself: a command,
    /// or a placeholder, which reads its environment. From outside that takes
    /// `access.allow_stdio_registration`.
    #[must_use]
    pub fn reaches_into_process(&self) -> bool {
        let mut found = matches!(self, Self::Stdio(_));
        self.clone().each_sensitive(&mut |_, value| found |= value.expose().contains("${"));
        found
    }

    /// Visits every value that may be a secret, with its place.
    pub(crate) fn each_sensitive(&mut self, visit: &mut dyn FnMut(String, &mut Sensitive)) {
        match self {
            Self::Stdio(stdio) => {
                for (index, arg) in stdio.args.iter_mut().enumerate() {
                    visit(format!("args/{index}"), arg);
                }
                for (name, value) in &mut stdio.env {
                    visit(format!("env/{name}"), value);
                }
            }
            Self::Http(http) | Self::Sse(http) => {
                visit("url".to_owned(), &mut http.url);
                for (name, value) in &mut http.headers {
                    visit(format!("headers/{name}"), value);
                }
            }
            Self::WebSocket(socket) => visit("url".to_owned(), &mut socket.url),
            Self::OpenApi(_) | Self::InProcess => {}
        }
    }
}

fn check_http(http: &HttpEndpoint, kind: &str, wrong: &mut dyn FnMut(&str, &str)) {
    check_url(&http.url, &["http", "https"], &format!("{kind}.url"), wrong);
    let name_char = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    for (name, value) in &http.headers {
        if name.is_empty() || !name.chars().all(name_char) {
            wrong(&format!("{kind}.headers"), &format!("`{}` is not a header name", name.escape_debug()));
        }
        if value.expose().chars().any(|c| c.is_control() && c != '\t') {
            wrong(&format!("{kind}.headers.{name}"), "must not contain control characters");
        }
    }
}

fn check_url(url: &Sensitive, schemes: &[&str], field: &str, wrong: &mut dyn FnMut(&str, &str)) {
    let text = url.expose();
    if text.contains("${") || url.is_mask() {
        return;
    }
    match Url::parse(text) {
        Ok(parsed) if schemes.contains(&parsed.scheme()) && parsed.has_host() => {}
        Ok(_) => wrong(field, &format!("must be an absolute address with the scheme {}", schemes.join(" or "))),
        Err(error) => wrong(field, &format!("must be an absolute address: {error}")),
    }
}

mod wire {
    //! What a reader of JSON accepts: unknown fields are errors that name them.

    use super::{
        Deserialize, Endpoint, HttpEndpoint, OpenApiEndpoint, PathBuf, Sensitive, SensitiveMap, StdioEndpoint,
        UrlEndpoint, classify_args, shown_unless_secret,
    };
    use serde::Deserializer;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Stdio {
        command: String,
        #[serde(default)]
        args: Vec<String>,
        #[serde(default)]
        env: SensitiveMap,
        cwd: Option<PathBuf>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Http {
        url: String,
        #[serde(default)]
        headers: SensitiveMap,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OnlyUrl {
        url: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OpenApi {
        document: String,
        base_url: String,
    }

    impl<'de> Deserialize<'de> for StdioEndpoint {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let Stdio { command, args, env, cwd } = Stdio::deserialize(deserializer)?;
            Ok(Self { command, args: mask_aware(classify_args(args)), env, cwd })
        }
    }

    /// A masked argument came from a reader, so it stands for a secret.
    fn mask_aware(args: Vec<Sensitive>) -> Vec<Sensitive> {
        args.into_iter().map(|arg| if arg.is_mask() { Sensitive::secret(arg.expose()) } else { arg }).collect()
    }

    impl<'de> Deserialize<'de> for HttpEndpoint {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let Http { url, headers } = Http::deserialize(deserializer)?;
            Ok(Self { url: shown_unless_secret(url), headers })
        }
    }

    impl<'de> Deserialize<'de> for UrlEndpoint {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let OnlyUrl { url } = OnlyUrl::deserialize(deserializer)?;
            Ok(Self { url: shown_unless_secret(url) })
        }
    }

    impl<'de> Deserialize<'de> for OpenApiEndpoint {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let OpenApi { document, base_url } = OpenApi::deserialize(deserializer)?;
            Ok(Self { document, base_url })
        }
    }

    impl From<StdioEndpoint> for Endpoint {
        fn from(endpoint: StdioEndpoint) -> Self {
            Self::Stdio(endpoint)
        }
    }

    impl From<HttpEndpoint> for Endpoint {
        fn from(endpoint: HttpEndpoint) -> Self {
            Self::Http(endpoint)
        }
    }
}
