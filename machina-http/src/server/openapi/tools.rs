//! Tools, calls of them, and groups.

use serde_json::{Value, json};

use super::operation::Operation;
use super::parts::{number, text};
use super::schemas::{of, page_of};
use super::services::TAGGED;

const TOOLS: &str = "Tools";
const GROUPS: &str = "Groups";
const CONNECT: &str = "Connecting hosts";

pub(super) fn operations() -> Vec<Operation> {
    let mut all = tools();
    all.extend(groups());
    all.extend(connect());
    all
}

fn tools() -> Vec<Operation> {
    let call = "/api/v1/services/{service}/call";
    let call_tool = "/api/v1/services/{service}/tools/{tool}/call";
    let limit = || number(1, 1000, Some(100));
    let with_key = json!({"tool": "echo", "arguments": {"text": "hello"}});
    vec![
        Operation::new("get", "/api/v1/tools", TOOLS, "list_tools", "The tools of all services, or of one")
            .query("service", "The name of the service", text())
            .query("limit", "How many on a page", limit())
            .with(&["cursor"])
            .answers(200, "The page", &page_of("ToolReport"), &[])
            .refuses(&[404]),
        Operation::new("post", "/api/v1/tools:find", TOOLS, "find_tools", "The tools that fit a text, best first")
            .takes(of("ToolSearch"), &json!({"text": "what time is it", "limit": 10}))
            .answers(200, "The tools", &of("FoundTools"), &[]),
        Operation::new("get", "/api/v1/services/{service}/tools", TOOLS, "list_tools_of_service", "Its tools")
            .query("limit", "How many on a page", limit())
            .with(&["cursor"])
            .answers(200, "The page", &page_of("ToolReport"), &[]),
        Operation::new("get", "/api/v1/services/{service}/tools/{tool}", TOOLS, "get_tool", "One definition").answers(
            200,
            "The definition, word for word, with `service` and `hash`",
            &of("ToolReport"),
            &[],
        ),
        calling(Operation::new("post", call, TOOLS, "call", "Calls a tool")).takes(of("Call"), &with_key),
        calling(Operation::new("post", call_tool, TOOLS, "call_tool", "Calls this tool"))
            .takes(of("ToolCall"), &json!({"arguments": {"text": "hello"}, "timeout_ms": 5000})),
    ]
}

/// What every call has: it goes to an instance, and may fail there.
pub(super) fn calling(operation: Operation) -> Operation {
    operation
        .says(
            "Carried to a healthy instance, and to another one where that is safe. A client that closes the connection \
             cancels the call, unless it has a key.",
        )
        .once()
        .answers(200, "What the tool answered", &of("CallResult"), &["Idempotency-Replayed"])
        .refuses(&[501, 502, 503, 504])
}

fn groups() -> Vec<Operation> {
    const ALL: &str = "/api/v1/groups";
    const ONE: &str = "/api/v1/groups/{group}";
    let group = || -> Value {
        json!({"name": "reading", "title": "Reading", "members": [{"service": "files", "tools": ["read_*"]}],
            "mode": "flat", "prefix": "on_collision"})
    };
    vec![
        Operation::new("get", ALL, GROUPS, "list_groups", "All groups").unless_known().answers(
            200,
            "All of them, as one page",
            &page_of("GroupReport"),
            &TAGGED,
        ),
        Operation::new("post", ALL, GROUPS, "make_group", "Makes a group")
            .once()
            .takes(of("GroupSpec"), &group())
            .answers(
                201,
                "The group",
                &of("GroupReport"),
                &["ETag", "Location", "X-Machina-Revision", "Idempotency-Replayed"],
            )
            .refuses(&[409]),
        Operation::new("get", ONE, GROUPS, "get_group", "A group").unless_known().answers(
            200,
            "The group",
            &of("GroupReport"),
            &TAGGED,
        ),
        Operation::new("put", ONE, GROUPS, "put_group", "Makes a group, or replaces its declaration")
            .at_revision()
            .takes(of("GroupDeclaration"), &group())
            .answers(200, "The group as it is now", &of("GroupReport"), &TAGGED)
            .answers(201, "The group, which is new", &of("GroupReport"), &["ETag", "Location", "X-Machina-Revision"])
            .refuses(&[429]),
        Operation::new("delete", ONE, GROUPS, "remove_group", "Removes a group").at_revision().answers_bare(
            204,
            "It is gone",
            &["X-Machina-Revision"],
        ),
    ]
}

fn connect() -> Vec<Operation> {
    let clients = json!({"type": "string", "examples": ["claude-code", "claude-desktop", "cursor", "vscode", "zed"]});
    let paths = [
        ("/api/v1/connect", "connect", "How a host is told to use this server"),
        ("/api/v1/services/{service}/connect", "connect_service", "How a host is told to use a service"),
        ("/api/v1/groups/{group}/connect", "connect_group", "How a host is told to use a group"),
    ];
    let described = paths.map(|(path, id, summary)| {
        Operation::new("get", path, CONNECT, id, summary)
            .required_query("client", "The host", clients.clone())
            .answers(200, "What to put where", &of("Connection"), &[])
            .refuses(&[501])
    });
    described.into_iter().collect()
}
