//! The two eras of MCP as a server speaks them: which one a request belongs to,
//! how Machina introduces itself, and what a result of each era carries.

use machina_core::Era;
use serde_json::{Value, json};

use super::changes::Kinds;
use super::listing::Entries;
use super::rpc::{self, Fault, INVALID_PARAMS, Id, Object, Request, UNSUPPORTED_VERSION, object};

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

/// What of the server depends on how it is set up, and on whom it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Face {
    /// The tools are those of the services.
    pub(crate) flat: bool,
    /// The lists of whose changes the host is told, if it wants to be.
    pub(crate) told: Kinds,
    /// Arguments of prompts and resource templates can be completed.
    pub(crate) completes: bool,
    /// What is offered is a group: its name for people, and what it is good for.
    pub(crate) group: Option<(String, String)>,
}

impl Face {
    fn instructions(&self) -> String {
        let usual = if self.flat { FLAT_INSTRUCTIONS } else { INSTRUCTIONS };
        match &self.group {
            Some((_, purpose)) if !purpose.is_empty() => format!("{purpose}\n\n{usual}"),
            _ => usual.to_owned(),
        }
    }

    /// What there is, and of which changes the host is told.
    fn capabilities(&self) -> Value {
        let list = |told: bool| if told { json!({"listChanged": true}) } else { json!({}) };
        let mut capabilities =
            json!({"tools": list(self.told.tools), "resources": list(self.told.resources), "logging": {}});
        if self.flat {
            capabilities["prompts"] = list(self.told.prompts);
        }
        if self.completes {
            capabilities["completions"] = json!({});
        }
        capabilities
    }

    fn title(&self) -> Option<&str> {
        self.group.as_ref().map(|(title, _)| &**title)
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
    result: Object,
    /// What stands before the rest of the result, as text that is there already.
    entries: Option<Entries>,
    cache: Option<Cache>,
    /// The title of the server, where it is not the usual one.
    title: Option<String>,
}

impl Reply {
    /// A result that nobody keeps.
    pub(crate) fn new(result: Object) -> Self {
        Self { result, entries: None, cache: None, title: None }
    }

    /// A result that may be kept.
    pub(crate) fn cached(result: Value, cache: Cache) -> Self {
        Self { cache: Some(cache), ..Self::new(object(result)) }
    }

    /// A page of a list; `rest` is what else the result says.
    pub(crate) fn listed(entries: Entries, rest: Object, cache: Cache) -> Self {
        Self { entries: Some(entries), cache: Some(cache), ..Self::new(rest) }
    }

    /// The text of the answer to the request `id`, as a host of `era` expects it.
    pub(crate) fn answer(mut self, id: &Id, era: Era) -> String {
        let Some(entries) = self.entries.take() else { return rpc::answer(Some(id), Ok(self.dressed(era))) };
        let rest = Value::Object(self.dressed(era)).to_string();
        let comma = if rest == "{}" { "" } else { "," };
        rpc::answer_of_parts(id, &["{\"", entries.field(), "\":[", entries.text(), "]", comma, &rest[1..]])
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
                meta.insert(META_SERVER_INFO.to_owned(), server_info(self.title.as_deref()));
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
pub(crate) fn initialize(params: &Object, face: &Face) -> Result<Reply, Fault> {
    let Some(asked) = params.get("protocolVersion").and_then(Value::as_str) else {
        return Err(Fault::malformed(INVALID_PARAMS, "protocolVersion: must be a string such as \"2025-11-25\""));
    };
    let version = if VERSIONS[1..].contains(&asked) { asked } else { LEGACY };
    Ok(Reply::new(object(json!({
        "protocolVersion": version,
        "capabilities": face.capabilities(),
        "serverInfo": server_info(face.title()),
        "instructions": face.instructions(),
    }))))
}

/// The answer to `server/discover`.
pub(crate) fn discover(face: &Face) -> Reply {
    let result = json!({
        "supportedVersions": VERSIONS,
        "capabilities": face.capabilities(),
        "instructions": face.instructions(),
    });
    // What belongs to a group, or hangs on a tenant, is nobody else's.
    let cache = if *face == (Face { told: face.told, ..Face::default() }) { STATIC } else { FRESH };
    Reply { title: face.title().map(str::to_owned), ..Reply::cached(result, cache) }
}

fn server_info(title: Option<&str>) -> Value {
    json!({"name": "machina", "title": title.unwrap_or("Machina"), "version": env!("CARGO_PKG_VERSION")})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::listing::Listing;

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
            initialize(&params, &Face::default()).unwrap().dressed(Era::Legacy)["protocolVersion"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        for version in &VERSIONS[1..] {
            assert_eq!(agreed(version), *version);
        }
        assert_eq!(agreed(MODERN), LEGACY);
        assert_eq!(agreed("1999-01-01"), LEGACY);
        assert_eq!(initialize(&Object::new(), &Face::default()).unwrap_err().code, INVALID_PARAMS);
    }

    #[test]
    fn what_is_said_of_the_tools_is_what_the_host_gets() {
        let params = object(json!({"protocolVersion": LEGACY}));
        let usual = Face::default();
        let group = Some(("Clocks".to_owned(), "Tells the time.".to_owned()));
        let flat = Face { flat: true, told: Kinds::ALL, completes: true, group };
        let told = initialize(&params, &flat).unwrap().dressed(Era::Legacy);
        let changing = json!({"listChanged": true});
        let all =
            json!({"tools": changing, "resources": changing, "prompts": changing, "completions": {}, "logging": {}});
        assert_eq!((&told["capabilities"], &told["serverInfo"]["title"]), (&all, &json!("Clocks")));
        let instructions = told["instructions"].as_str().unwrap();
        assert!(instructions.starts_with("Tells the time.\n") && !instructions.contains("find_tool"));
        let found = discover(&flat).dressed(Era::Modern);
        assert_eq!((&found["capabilities"], &found["cacheScope"]), (&all, &json!("private")));
        assert_eq!(found["_meta"][META_SERVER_INFO]["title"], "Clocks");
        let few = json!({"tools": {}, "resources": {}, "logging": {}});
        let told = initialize(&params, &usual).unwrap().dressed(Era::Legacy);
        assert_eq!((&told["capabilities"], &told["serverInfo"]["title"]), (&few, &json!("Machina")));
    }

    #[test]
    fn a_list_is_the_text_that_is_there_and_the_rest_of_the_result() {
        let listing = || {
            let mut listing = Listing::new("things");
            listing.push_own("a", 0, &json!({"z": 1, "a": "ü"}));
            listing.push_own("a", 1, &json!(2));
            listing.finished()
        };
        let answer = |rest, era| {
            let reply = Reply::listed(listing().whole(), object(rest), FRESH);
            reply.answer(&Id::of(&json!("x")).unwrap(), era)
        };
        let (before, after) = (r#"{"jsonrpc":"2.0","id":"x","result":{"things":[{"z":1,"a":"ü"},2]"#, "}}");
        assert_eq!(answer(json!({}), Era::Legacy), format!("{before}{after}"));
        let next = r#","nextCursor":"c""#;
        assert_eq!(answer(json!({"nextCursor": "c"}), Era::Legacy), format!("{before}{next}{after}"));
        let modern: Value = serde_json::from_str(&answer(json!({"_meta": {"k": 1}}), Era::Modern)).unwrap();
        let result = &modern["result"];
        assert_eq!(
            (&result["resultType"], &result["ttlMs"], &result["_meta"]["k"]),
            (&json!("complete"), &json!(0), &json!(1))
        );
        assert_eq!(result["things"], json!([{"z": 1, "a": "ü"}, 2]));
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
        assert_eq!(discover(&Face::default()).dressed(Era::Modern)["ttlMs"], 300_000);
    }
}
