//! Every setting by name, with what it is: the one list that the schema, the
//! errors and the reference page are held against.

use serde_json::Value;

use super::Settings;
use super::layers::at;

/// One setting.
#[derive(Debug)]
pub(super) struct Key {
    /// `section.name`.
    pub(super) path: &'static str,
    /// What it is, in one sentence without an end.
    pub(super) doc: &'static str,
    /// What it may be, where that is one of few words.
    pub(super) choices: &'static [&'static str],
}

impl Key {
    /// Its value when nobody sets it.
    pub(super) fn default(&self) -> Value {
        let tree = serde_json::to_value(Settings::default()).unwrap_or_default();
        at(&tree, self.path).cloned().unwrap_or_default()
    }
}

const fn key(path: &'static str, doc: &'static str) -> Key {
    Key { path, doc, choices: &[] }
}

/// Every setting, in the order of the reference page.
pub(super) const KEYS: &[Key] = &[
    key(
        "server.listen",
        "the address and port of the HTTP server; only loopback addresses until there is authentication",
    ),
    key("server.allowed_hosts", "names under which the server may be asked, besides loopback ones"),
    key("server.body_max", "how many bytes the body of a request may have"),
    key("server.request_timeout", "how long a request that is not a call may take"),
    key(
        "server.cors_allowed_origins",
        "origins whose pages may use the API from a browser though they come from elsewhere",
    ),
    key("server.connections_max", "how many connections there may be; further ones wait to be taken"),
    key("server.header_bytes_max", "how many bytes the request line and the headers may have together"),
    key("server.header_timeout", "how long the head of a request may take to arrive"),
    key(
        "server.idle_timeout",
        "how long a connection may be idle between two requests, and how long its peer may take nothing of an answer",
    ),
    key(
        "server.shutdown_delay",
        "how long a server that was told to stop still takes requests, while `/readyz` says that it will not",
    ),
    key("server.job_secret", "what the header x-cron-secret of POST /api/jobs/health-check must hold"),
    Key {
        path: "mcp.mode",
        doc: "which tools a host sees: five that reach every other, or every tool by itself",
        choices: &["meta", "flat"],
    },
    Key {
        path: "mcp.prefix",
        doc: "when the name of a tool is preceded by that of its service, in flat mode",
        choices: &["always", "on_collision", "none"],
    },
    key("mcp.aliases", "whether the names that earlier gateways gave the tools of meta mode are listed too"),
    key("mcp.allowed_origins", "web pages that may ask the MCP endpoint, as origins such as `https://app.example`"),
    key("mcp.message_bytes_max", "the longest message from a host, in bytes"),
    key("mcp.message_timeout", "how long a host may take to send its message"),
    key("mcp.requests_max", "how many calls of all hosts together run at a time"),
    key("mcp.sessions_max", "how many sessions of the older era are remembered"),
    key("mcp.session_idle", "how long an idle session of the older era is remembered"),
    key("mcp.streams_max", "how many streams that tell of changes are open at a time"),
    key("mcp.sockets_max", "how many WebSockets are open at a time"),
    key("mcp.stream_after", "how long a call may run before its answer becomes a stream of events"),
    key("mcp.keep_alive", "how often a silent stream of events shows a sign of life, and a WebSocket asks for one"),
    key("registry.namespace", "what stands before the names of services without a namespace in the registry API"),
    key("registry.allowed_origins", "web pages that may read the registry API, as origins, or `*` for all"),
    key("store.url", "where services and history are kept: `sqlite:PATH` or `memory:`"),
    key("import", "files of MCP servers, in any format that `machina import` reads, declared at every start"),
    key("health.interval", "time between two probes of an instance"),
    key("health.fast_interval", "time between two probes while the state of an instance is in doubt"),
    key("health.timeout", "how long one attempt of a probe may take"),
    key("health.startup_grace", "how long a new instance may take to answer for the first time"),
    key("health.startup_grace_stdio", "the same for a child process, whose package may have to be downloaded"),
    key("health.failure_threshold", "soft failures in a row until an instance is unhealthy"),
    key("health.success_threshold", "passes in a row until an unhealthy instance is healthy"),
    key("health.passive_window", "a successful call within this time replaces a probe"),
    key("health.list_every", "every how many probes the tools are listed again"),
    key("health.probes_max", "how many probes run at once"),
    key(
        "health.expired_retention",
        "how long an instance that registered itself is kept after its heartbeats have stopped",
    ),
    Key { path: "routing.balancer", doc: "how an instance is picked", choices: &["peak_ewma", "round_robin"] },
    key("routing.timeout", "how long a call may take in all, retries included"),
    key("routing.attempts_max", "how many attempts a call may have where repeating it is safe"),
    key("routing.trust_annotations", "whether every server's readOnlyHint and idempotentHint are believed"),
    Key {
        path: "sessions.start",
        doc: "when instances are started: all of them once, or only those whose tools are not known yet",
        choices: &["eager", "lazy"],
    },
    key("sessions.idle_timeout", "a child process that was not called for this long is stopped until the next call"),
    key("sessions.connect_timeout", "how long a connection to an HTTP server may take"),
    key("sessions.start_timeout", "how long a child process that has worked before may take to start"),
    key("sessions.close_timeout", "how long closing everything may take"),
    key("journal.keep", "how long health transitions, calls and audit entries are kept"),
    key("journal.keep_samples", "how long samples of probes are kept"),
    key("journal.entries_max", "how many entries of each kind are kept; for samples and transitions, of each instance"),
    key("journal.queue_max", "how many entries may wait to be written; more are dropped and counted"),
    key("limits.services_max", "how many services there may be"),
    key("limits.instances_max", "how many instances a service may have"),
    key("limits.batch_max", "how many changes one request may make"),
    key("limits.events_max", "how many past events can be replayed"),
    key("limits.groups_max", "how many groups there may be"),
    key("access.allow_stdio_registration", "whether services with a command may be registered over HTTP"),
    key("stdio.inherit_env", "variables that a child process inherits; `LC_*` means every name with that prefix"),
    key("stdio.allow_env", "variables that change what code a child runs and may be declared nevertheless"),
    key("stdio.message_bytes_max", "the longest message from or to a child, in bytes"),
    key("stdio.stderr_bytes_max", "how much of a child's stderr is kept, in bytes"),
    key("stdio.queue_bytes_max", "how many bytes may wait to be written to a child"),
    key("stdio.write_timeout", "how long a child may leave a message unread before it is given up"),
    key("stdio.discover_timeout", "how long a child may leave `server/discover` unanswered before the older handshake"),
    key("stdio.stop_after_eof", "how long a stopping child has from the end of its stdin to SIGTERM"),
    key("stdio.stop_after_term", "how long it has from SIGTERM to SIGKILL"),
    key("stdio.starts_max", "how many children may be starting at a time"),
    key("http.connect_timeout", "how long it may take to resolve a name, connect and agree on TLS"),
    key("http.discover_timeout", "how long a server may leave `server/discover` unanswered before the older handshake"),
    key("http.message_bytes_max", "the longest message from or to a server, in bytes"),
    key("http.idle_connections_max", "how many idle connections are kept per host"),
    key("http.idle_timeout", "how long an idle connection is kept"),
    key("services", "services, as `POST /api/v1/services` takes them, declared at every start"),
    key("groups", "groups, as `POST /api/v1/groups` takes them, declared at every start"),
];

pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether `name` is that of a section.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.path.split_once('.').is_some_and(|(section, _)| section == name))
}

/// The setting that was probably meant by `path`.
pub(super) fn near(path: &str) -> Option<&'static Key> {
    let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let same_name = KEYS.iter().find(|key| name(key.path) == name(path));
    let nearest = KEYS.iter().min_by_key(|key| distance(key.path, path));
    same_name.or(nearest.filter(|key| distance(key.path, path) <= 2 + path.len() / 8))
}

/// How many letters have to be put, taken or changed to make `b` of `a` (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
