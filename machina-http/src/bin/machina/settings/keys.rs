//! Every setting by name, with what it is: the one list that the schema, the
//! errors and the reference page are held against.

use std::borrow::Cow;
use std::sync::LazyLock;

use machina_core::{HealthConfig, RoutingConfig, SessionsConfig};
use serde_json::Value;

use super::Settings;
use super::layers::at;

/// One setting.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// `section.name`.
    pub(super) path: &'static str,
    /// What it is, in one sentence without an end.
    pub(super) doc: Cow<'static, str>,
    /// What it may be, where that is one of few words.
    pub(super) choices: &'static [&'static str],
}

impl Key {
    /// One that the core declares, with its sentence.
    fn declared(path: &'static str, sentence: &str) -> Self {
        let sentence = sentence.trim().trim_end_matches('.');
        let (first, rest) = sentence.split_at(sentence.chars().next().map_or(0, char::len_utf8));
        let doc = format!("{}{rest}", first.to_lowercase());
        let choices = CHOICES.iter().find(|(of, _)| *of == path).map_or(&[][..], |(_, choices)| choices);
        Self { path, doc: doc.into(), choices }
    }

    /// Its value when nobody sets it.
    pub(super) fn default(&self) -> Value {
        let tree = serde_json::to_value(Settings::default()).unwrap_or_default();
        at(&tree, self.path).cloned().unwrap_or_default()
    }
}

const fn key(path: &'static str, doc: &'static str) -> Key {
    Key { path, doc: Cow::Borrowed(doc), choices: &[] }
}

/// Every setting, in the order of the reference page. What a service may set for
/// itself is told by the core, which declares it.
pub(super) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let declared = |settings: &'static [(&str, &str)]| settings.iter().map(|(path, doc)| Key::declared(path, doc));
    let mut keys = FIRST.to_vec();
    keys.extend(declared(HealthConfig::SETTINGS).chain(HEALTH.iter().cloned()));
    keys.extend(declared(RoutingConfig::SETTINGS).chain(ROUTING.iter().cloned()));
    keys.extend(declared(SessionsConfig::SETTINGS).chain(SESSIONS.iter().cloned()));
    keys.extend_from_slice(LAST);
    keys
});

/// What those of a few words may be that a service may set for itself.
const CHOICES: &[(&str, &[&str])] = &[
    ("health.level", &["ping", "tools", "canary"]),
    ("routing.balancer", &["peak_ewma", "round_robin", "weighted_random", "least_outstanding"]),
    ("routing.pinning", &["report", "strict"]),
    ("sessions.start", &["eager", "lazy"]),
];

/// Those before the health of instances, in the order of the reference page.
const FIRST: &[Key] = &[
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
    key(
        "server.remote_stores",
        "whether other Machinas may follow this one: read its store, secrets in place, and commit to it",
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
        doc: Cow::Borrowed("which tools a host sees: five that reach every other, or every tool by itself"),
        choices: &["meta", "flat"],
    },
    Key {
        path: "mcp.prefix",
        doc: Cow::Borrowed("when the name of a tool is preceded by that of its service, in flat mode"),
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
    key(
        "store.url",
        "where services and history are kept: `sqlite:PATH`, `memory:`, `postgres://…`, or `follow+https://…` for those of another Machina",
    ),
    key(
        "store.redis",
        "a Redis that replicas share beside their store: `redis://` or `rediss://`, then `[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`",
    ),
    key("import", "files of MCP servers, in any format that `machina import` reads, declared at every start"),
    Key {
        path: "builtin",
        doc: Cow::Borrowed("services that come with Machina and are served from its own process"),
        choices: &["calculator", "strings", "transform"],
    },
];

/// Those of health that no service has of its own.
const HEALTH: &[Key] = &[
    key(
        "health.startup_grace_stdio",
        "`health.startup_grace` of a child process: its package may have to be downloaded",
    ),
    key(
        "health.expired_retention",
        "how long an instance that registered itself is kept after its heartbeats have stopped",
    ),
    key("health.probes_max", "how many probes run at once"),
    key("health.probes_per_host_max", "how many probes of instances at one host run at once"),
    key(
        "health.self_preservation_percentage",
        "when more than this share of the instances, in percent, fail softly within one interval, the fault is taken to be Machina's own: no soft failure takes an instance down until that is over",
    ),
    key(
        "health.lag_max",
        "while Machina's own loop is late by more than this, probes get up to eight times their time",
    ),
];

/// Those of routing that no service has of its own.
const ROUTING: &[Key] = &[
    key("routing.in_flight_max_stdio", "how many calls an instance that is a child process works on at once"),
    key("routing.region", "the region that this process runs in: instances there are preferred"),
    key("routing.zone", "the zone within the region"),
];

/// Those of sessions that no service has of its own.
const SESSIONS: &[Key] = &[key("sessions.close_timeout", "how long closing everything may take")];

/// Those after them.
const LAST: &[Key] = &[
    key("journal.keep", "how long health transitions, calls and audit entries are kept"),
    key("journal.keep_samples", "how long samples of probes are kept"),
    key("journal.entries_max", "how many entries of each kind are kept; for samples and transitions, of each instance"),
    key(
        "journal.samples_max",
        "how many samples of probes are kept of all instances together; each has an equal share, and at least 20",
    ),
    key("journal.keep_arguments", "whether the arguments of calls are kept, if they are no longer than 16 KiB"),
    key("journal.queue_max", "how many entries may wait to be written; more are dropped and counted"),
    key("limits.services_max", "how many services there may be"),
    key("limits.instances_max", "how many instances a service may have"),
    key("limits.batch_max", "how many changes one request may make"),
    key("limits.events_max", "how many past events can be replayed"),
    key("limits.groups_max", "how many groups there may be"),
    key("access.allow_stdio_registration", "whether services with a command may be registered over HTTP"),
    key("access.command_templates", "commands that administrators may register over HTTP"),
    key("access.calls_per_minute", "how many calls a minute each principal may make; 0 for any number, to 1000000"),
    key("access.calls_burst", "how many of them may come at once; 1 to 100000"),
    key(
        "egress.allow",
        "loopback and private networks, such as 127.0.0.0/8, in which services may be that were registered over HTTP",
    ),
    key(
        "replicas.lease_ttl",
        "how long one of several replicas that falls silent keeps the instances that it looks after",
    ),
    key("replicas.renew_interval", "how often a replica says that it is there; at most a third of the former"),
    key("replicas.stale_after", "what is shown counts as stale when the store has not confirmed it for so long"),
    key("alerts.enabled", "whether anyone is told of a service that does not say otherwise"),
    key("alerts.source", "what messages say they come from, to tell several Machinas apart"),
    key("alerts.rules", "what is looked for"),
    key("alerts.down_after", "how long a service must have been down"),
    key("alerts.critical_after", "how long an alert lasts until it is critical"),
    key("alerts.emergency_after", "how long an alert lasts until it is an emergency"),
    key(
        "alerts.definition_window",
        "for how long further changes of what a service publishes are gathered after one was told",
    ),
    key("alerts.reminder_interval", "how often an alert that still fires is told again; `0s` for never"),
    key("alerts.delivery_timeout", "how long one attempt to deliver a message may take"),
    key("alerts.attempts_max", "how many attempts a message may have before its channel is left alone for a while"),
    key(
        "alerts.messages_per_minute_max",
        "how many messages a channel gets in a minute; the last of them sums up all that would follow",
    ),
    key("alerts.firing_max", "how many alerts there may be at a time"),
    key("alerts.recent_max", "how many alerts that are over are remembered"),
    key("alerts.channels", "whom alerts reach, and how"),
    key("alerts.quiet_hours", "when little is sent, and in which time zone"),
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
    key("stdio.open_files_max", "how many files a child may have open; never more than Machina itself"),
    key("stdio.core_dumps", "whether a child that crashes may leave its memory, secrets included, in a file"),
    key("stdio.private_files", "whether only its own user may read the files that a child makes (umask 077)"),
    key("stdio.no_new_privs", "whether a child can never gain privileges (Linux); `sudo` does not work in it then"),
    key(
        "stdio.shepherd",
        "which program ends the children when Machina is killed: `auto` for Machina itself, `off`, or the absolute \
         path of a `machina`",
    ),
    key("http.connect_timeout", "how long it may take to resolve a name, connect and agree on TLS"),
    key("http.discover_timeout", "how long a server may leave `server/discover` unanswered before the older handshake"),
    key("http.message_bytes_max", "the longest message from or to a server, in bytes"),
    key("http.idle_connections_max", "how many idle connections are kept per host"),
    key("http.idle_timeout", "how long an idle connection is kept"),
    key("http.keepalive_interval", "how often the other end of a silent connection is asked for a sign of life"),
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
