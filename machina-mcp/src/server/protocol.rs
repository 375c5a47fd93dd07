//! The two eras of MCP as a server speaks them: which one a request belongs to,
//! how Machina introduces itself, and what a result of each era carries.

use machina_core::Era;
use serde_json::{Value, json};

use super::rpc::{Fault, INVALID_PARAMS, Object, Request, UNSUPPORTED_VERSION, object};

/// Every revision that is spoken, newest first.
pub(crate) const VERSIONS: [&str; 5] = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// The first revision without a handshake.
pub(crate) const MODERN: &str = VERSIONS[0];
/// The newest revision with a handshake.
const LEGACY: &str = VERSIONS[1];

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// How long a host may keep what only changes with a new release.
pub(crate) const STATIC: Cache = Cache { ttl_ms: 300_000, scope: "public" };
/// What a host may not keep, and not share.
pub(crate) const FRESH: Cache = Cache { ttl_ms: 0, scope: "private" };

/// What the model of a host is told about the whole server.
const INSTRUCTIONS: &str = "Machina carries tool calls to many MCP servers. To do something: `find_tool` with a few \
    words about the task returns the best tools with their input schemas; then `call_tool` with the service, the tool \
    and its arguments. `list_services` and `list_tools` are for browsing, `describe_tool` for one whole definition.";

/// The same in flat mode.
const FLAT_INSTRUCTIONS: &str = "Machina carries tool calls to many MCP servers, here called services. The tools of \
    all of them are listed; a name such as `time__now` says that the tool `now` is of the service `time`. The resource \
    `machina://services/{name}` documents a service.";

/// What of the server depends on how it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Face {
    /// The tools are those of the services.
    pub(crate) flat: bool,
    /// A host of the older era is told when they have changed.
    pub(crate) tells_changes: bool,
}

impl Face {
    fn instructions(self) -> &'static str {
        if self.flat { FLAT_INSTRUCTIONS } else { INSTRUCTIONS }
    }
}

/// How long a result may be kept, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cache {
    ttl_ms: u64,
    scope: &'static str,
}

/// A successful answer, in neither era's dress yet.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) result: Object,
    pub(crate) cache: Option<Cache>,
}

impl Reply {
    /// A result that nobody keeps.
    pub(crate) fn new(result: Object) -> Self {
        Self { result, cache: None }
    }

    /// A result that may be kept.
    pub(crate) fn cached(result: Value, cache: Cache) -> Self {
        Self { result: object(result), cache: Some(cache) }
    }

    /// The result as a host of `era` expects it. What an upstream said of its
    /// own era and of itself does not survive: the host talks to Machina.
    pub(crate) fn dressed(self, era: Era) -> Object {
        let mut result = self.result;
        result.shift_remove("resultType");
        let meta = result.get_mut("_meta").and_then(Value::as_object_mut);
        let emptied = meta.is_some_and(|meta| meta.shift_remove(META_SERVER_INFO).is_some() && meta.is_empty());
        if emptied {
            result.shift_remove("_meta");
        }
        if era == Era::Modern {
            result.insert("resultType".to_owned(), "complete".into());
            if let Some(Cache { ttl_ms, scope }) = self.cache {
                result.insert("ttlMs".to_owned(), ttl_ms.into());
                result.insert("cacheScope".to_owned(), scope.into());
            }
            let meta = result.entry("_meta").or_insert_with(|| json!({}));
            if let Some(meta) = meta.as_object_mut() {
                meta.insert(META_SERVER_INFO.to_owned(), server_info());
            }
        }
        result
    }
}

/// The revision that a request names in its `_meta`.
pub(crate) fn named_version(request: &Request) -> Option<&str> {
    request.meta(META_VERSION)?.as_str()
}

/// The era that a request belongs to. A request of the stateless era says so
/// itself; every other one belongs to the older, and so does a plain handshake.
pub(crate) fn era_of(request: &Request) -> Result<Era, Fault> {
    let stateless = request.method == "server/discover" || request.meta(META_VERSION).is_some();
    if !stateless {
        return Ok(Era::Legacy);
    }
    let version = named_version(request);
    if let Some(version) = version.filter(|version| !VERSIONS.contains(version)) {
        return Err(unsupported(version));
    }
    match (version, request.meta(META_CAPABILITIES)) {
        (Some(version), Some(Value::Object(_))) => Ok(Era::of(version)),
        (version, capabilities) => Err(incomplete(version.is_none(), !capabilities.is_some_and(Value::is_object))),
    }
}

/// The fault of a request that lacks the `_meta` of the stateless era.
pub(crate) fn without_meta() -> Fault {
    incomplete(true, true)
}

fn incomplete(version: bool, capabilities: bool) -> Fault {
    let missing = [(version, META_VERSION), (capabilities, META_CAPABILITIES)];
    let missing = missing.iter().filter(|(is_missing, _)| *is_missing).map(|(_, key)| format!("`{key}`"));
    let missing = missing.collect::<Vec<_>>().join(" and ");
    Fault::malformed(INVALID_PARAMS, format!("`_meta` lacks, or has malformed, {missing}; or send `initialize` first"))
}

/// The fault of a request in a revision that is not spoken.
pub(crate) fn unsupported(version: &str) -> Fault {
    let mut fault = Fault::malformed(UNSUPPORTED_VERSION, "Unsupported protocol version");
    fault.data = Some(Box::new(json!({"requested": version, "supported": VERSIONS})));
    fault
}

/// The answer to `initialize`: the revision that was asked for, if it has a
/// handshake and is spoken, else the newest that has one.
pub(crate) fn initialize(params: &Object, face: Face) -> Result<Reply, Fault> {
    let Some(asked) = params.get("protocolVersion").and_then(Value::as_str) else {
        return Err(Fault::malformed(INVALID_PARAMS, "protocolVersion: must be a string such as \"2025-11-25\""));
    };
    let version = if VERSIONS[1..].contains(&asked) { asked } else { LEGACY };
    Ok(Reply::new(object(json!({
        "protocolVersion": version,
        "capabilities": capabilities(face.tells_changes),
        "serverInfo": server_info(),
        "instructions": face.instructions(),
    }))))
}

/// The answer to `server/discover`.
pub(crate) fn discover(face: Face) -> Reply {
    let result = json!({
        "supportedVersions": VERSIONS,
        // There is no stream on which a host of this era could be told of changes.
        "capabilities": capabilities(false),
        "instructions": face.instructions(),
    });
    Reply::cached(result, STATIC)
}

/// What there is, and whether the host is told of changes.
fn capabilities(tells_changes: bool) -> Value {
    let tools = if tells_changes { json!({"listChanged": true}) } else { json!({}) };
    json!({"tools": tools, "resources": {}})
}

fn server_info() -> Value {
    json!({"name": "machina", "title": "Machina", "version": env!("CARGO_PKG_VERSION")})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::rpc::Id;

    const META: Face = Face { flat: false, tells_changes: false };

    fn request(method: &str, meta: Value) -> Request {
        let id = Id::of(&json!(1)).unwrap();
        Request { id, method: method.to_owned(), params: object(json!({"_meta": meta})) }
    }

    fn meta(version: &str) -> Value {
        json!({META_VERSION: version, META_CAPABILITIES: {}})
    }

    #[test]
    fn a_request_says_its_own_era() {
        assert_eq!(era_of(&request("tools/list", json!({}))), Ok(Era::Legacy));
        assert_eq!(era_of(&request("tools/list", meta(MODERN))), Ok(Era::Modern));
        assert_eq!(era_of(&request("tools/list", meta(LEGACY))), Ok(Era::Legacy));
        assert_eq!(era_of(&request("initialize", json!({}))), Ok(Era::Legacy));
        assert_eq!(era_of(&request("initialize", meta(MODERN))), Ok(Era::Modern));
        assert_eq!(era_of(&request("server/discover", meta(MODERN))), Ok(Era::Modern));
    }

    #[test]
    fn incomplete_and_unknown_revisions_are_faults_that_say_what_is_right() {
        let unknown = era_of(&request("tools/list", meta("2099-01-01"))).unwrap_err();
        assert_eq!(unknown.code, UNSUPPORTED_VERSION);
        assert_eq!(unknown.data.unwrap()["supported"][0], MODERN);
        for (method, meta, missing) in [
            ("server/discover", json!({}), META_VERSION),
            ("tools/list", json!({META_VERSION: MODERN}), META_CAPABILITIES),
            ("tools/list", json!({META_VERSION: 7, META_CAPABILITIES: {}}), META_VERSION),
        ] {
            let fault = era_of(&request(method, meta)).unwrap_err();
            assert_eq!((fault.code, fault.malformed), (INVALID_PARAMS, true));
            assert!(fault.message.contains(missing), "{}", fault.message);
        }
    }

    #[test]
    fn initialize_agrees_on_a_revision_with_a_handshake() {
        let agreed = |asked: &str| {
            let params = object(json!({"protocolVersion": asked}));
            initialize(&params, META).unwrap().dressed(Era::Legacy)["protocolVersion"].as_str().unwrap().to_owned()
        };
        for version in &VERSIONS[1..] {
            assert_eq!(agreed(version), *version);
        }
        assert_eq!(agreed(MODERN), LEGACY);
        assert_eq!(agreed("1999-01-01"), LEGACY);
        assert_eq!(initialize(&Object::new(), META).unwrap_err().code, INVALID_PARAMS);
    }

    #[test]
    fn what_is_said_of_the_tools_is_what_the_host_gets() {
        let params = object(json!({"protocolVersion": LEGACY}));
        let flat = Face { flat: true, tells_changes: true };
        let told = initialize(&params, flat).unwrap().dressed(Era::Legacy);
        assert_eq!(told["capabilities"]["tools"], json!({"listChanged": true}));
        assert!(!told["instructions"].as_str().unwrap().contains("find_tool"));
        assert_eq!(discover(flat).dressed(Era::Modern)["capabilities"]["tools"], json!({}));
        assert_eq!(initialize(&params, META).unwrap().dressed(Era::Legacy)["capabilities"]["tools"], json!({}));
    }

    #[test]
    fn a_result_wears_the_dress_of_the_era_of_its_host() {
        let upstream = || {
            Reply::new(object(json!({
                "resultType": "complete", "content": [], "x-more": 1,
                "_meta": {META_SERVER_INFO: {"name": "upstream"}, "trace": "t"}
            })))
        };
        let legacy = Value::Object(upstream().dressed(Era::Legacy));
        assert_eq!(legacy, json!({"content": [], "x-more": 1, "_meta": {"trace": "t"}}));
        let modern = Value::Object(upstream().dressed(Era::Modern));
        assert_eq!((&modern["resultType"], &modern["_meta"]["trace"]), (&json!("complete"), &json!("t")));
        assert_eq!(modern["_meta"][META_SERVER_INFO]["name"], "machina");
        assert_eq!(discover(META).dressed(Era::Modern)["ttlMs"], 300_000);
    }
}
