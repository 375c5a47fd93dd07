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
        doc: "services that come with Machina and are served from its own process",
        choices: &["calculator", "strings", "transform"],
    },
    key(
        "health.interval",
        "time between two probes of an instance; 1 s to 1 h. Each is up to a tenth shorter, by chance",
    ),
    key("health.fast_interval", "time between two probes while the state of an instance is in doubt; 100 ms to 1 h"),
    key("health.timeout", "how long one attempt of a probe may take; 100 ms to 1 min"),
    key(
        "health.confirm_timeout",
        "how long the attempt may take that confirms a failed probe over a new connection; 100 ms to 1 min",
    ),
    key(
        "health.confirm_delay",
        "how long after a failed probe it is confirmed, at least; at most twice as long. 0 s to 10 s",
    ),
    key("health.startup_grace", "how long a new instance may take to answer for the first time; 1 s to 15 min"),
    key("health.passive_window", "a successful call within this time replaces a probe; 0 s to 1 h"),
    key(
        "health.flap_window",
        "the time over which an instance that goes down again and again is counted as flapping; 10 s to 1 day",
    ),
    key("health.flap_hold", "how long an instance counts as flapping at most after it last went down; 1 s to 1 day"),
    key(
        "health.slow_start",
        "how long an instance that came back takes to get its full share of the calls, beginning with a tenth; 0 s to 1 h. Twice as long while it flaps",
    ),
    key("health.failure_threshold", "soft failures in a row until an instance is unhealthy; 1 to 100"),
    key("health.success_threshold", "passes in a row until an unhealthy instance is healthy; 1 to 100"),
    key("health.retries", "how often a failed probe is confirmed before it counts; 0 to 5"),
    key("health.list_every", "every how many probes the definitions are listed again; 1 to 1000000"),
    key(
        "health.flap_threshold",
        "an instance that went down more often than this within the window is flapping; 1 to 100",
    ),
    key("health.flap_success_threshold", "passes in a row until a flapping instance is healthy; 1 to 100"),
    Key { path: "health.level", doc: "how deep a probe looks", choices: &["ping", "tools", "canary"] },
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
    key("routing.timeout", "how long a call may take in all, retries included; 10 ms to 10 min"),
    key(
        "routing.idle_timeout",
        "how long an instance may be silent about a call: its progress begins this anew, but never `timeout`; 10 ms to 10 min",
    ),
    key(
        "routing.queue_timeout",
        "how long a call may wait for an instance with room, at most half its own time; 0 s to 1 min",
    ),
    key("routing.restart_hold", "how long a call waits for the only instance while that restarts; 0 s to 1 min"),
    key("routing.ejection_window", "the time over which the share of successful calls is counted; 1 s to 5 min"),
    key(
        "routing.ejection_time",
        "how long an instance that fails is first ejected; 100 ms to 10 min. Each time in a row twice as long",
    ),
    key("routing.ejection_time_max", "how long it is ejected at most; 100 ms to 1 h"),
    key(
        "routing.retry_after_max",
        "how long an instance that says when to come back is left alone at most; 0 s to 1 h",
    ),
    key(
        "routing.hedge_delay",
        "how long a call must have taken before a second instance is asked, at least; 1 ms to 1 min",
    ),
    key("routing.latency_default", "what is assumed of an instance that was never called; 1 ms to 1 min"),
    key("routing.latency_decay", "the time over which an old latency loses its weight; 100 ms to 10 min"),
    key(
        "routing.failure_penalty",
        "what counts as the latency of a failed call, so that an instance that fails fast does not look fast; 0 s to 10 min",
    ),
    key("routing.attempts_max", "how many attempts a call may have, where repeating it is safe; 1 to 10"),
    key(
        "routing.in_flight_max",
        "how many calls an instance works on at once; 1 to 10000. One where the server takes one at a time",
    ),
    key("routing.queue_max", "how many calls may wait for an instance with room; 0 to 100000"),
    key("routing.retry_percentage", "how many calls may be repeated, in percent of all; 0 to 100"),
    key("routing.retries_per_second", "how many calls a second may be repeated besides; 0 to 1000"),
    key("routing.ejection_failures", "how many failures in a row eject an instance; 1 to 1000"),
    key(
        "routing.ejection_success_percentage",
        "below this share of successful calls, in percent, an instance is ejected; 0 to 100",
    ),
    key("routing.ejection_samples", "how many calls the share must rest on; 1 to 10000"),
    key(
        "routing.panic_percentage",
        "when fewer than this share of the instances, in percent, may take calls, all are used that are not certainly down; 0 to 100",
    ),
    key(
        "routing.locality_percentage",
        "when fewer than this share of the instances nearby, in percent, may take calls, those further away are used too; 0 to 100",
    ),
    key("routing.hedge_percentage", "how many calls may be sent to a second instance, in percent of all; 0 to 100"),
    key(
        "routing.calls_per_minute",
        "how many calls a minute a service takes from all callers together; 0 for any number, to 1000000",
    ),
    key("routing.calls_burst", "how many of them may come at once; 1 to 100000"),
    Key {
        path: "routing.balancer",
        doc: "how an instance is picked",
        choices: &["peak_ewma", "round_robin", "weighted_random", "least_outstanding"],
    },
    key(
        "routing.trust_annotations",
        "whether the server's own `readOnlyHint` and `idempotentHint` are believed. Only then may a call whose outcome is unknown be repeated elsewhere",
    ),
    key(
        "routing.session_affinity",
        "whether the calls of one session of a host go to the same instance while that is up: for servers that remember who asked",
    ),
    key("routing.validate_arguments", "whether arguments are held against the tool's schema before anything is sent"),
    Key {
        path: "routing.pinning",
        doc: "what happens when a tool is another one than was pinned",
        choices: &["report", "strict"],
    },
    key("routing.in_flight_max_stdio", "how many calls an instance that is a child process works on at once"),
    key("routing.region", "the region that this process runs in: instances there are preferred"),
    key("routing.zone", "the zone within the region"),
    key(
        "sessions.idle_timeout",
        "a child process that was not called for this long is stopped; it starts again with the next call. 1 s to 1 day",
    ),
    key(
        "sessions.connect_timeout",
        "how long a connection to an instance that is no child process may take; 100 ms to 1 min",
    ),
    key(
        "sessions.start_timeout",
        "how long the start of a child process may take that has answered before; a new one has `startup_grace`. 1 s to 15 min",
    ),
    key(
        "sessions.restart_delay_max",
        "a process that ends is started anew at once, the next time after up to 1 s, and each further time after up to twice as long, but never longer than this; 1 s to 1 h",
    ),
    key(
        "sessions.restart_reset",
        "after so long without ending, a process that ends is again started at once; 1 s to 1 day",
    ),
    key("sessions.crash_loop_window", "the time over which restarts are counted; 1 s to 1 day"),
    key("sessions.crash_loop_interval", "how often a process in a crash loop is still started; 1 s to 1 day"),
    key(
        "sessions.crash_loop_restarts",
        "a process that ended more often than this within the window is in a crash loop; 1 to 1000",
    ),
    key("sessions.warm", "how many instances are kept running though no one calls them; 0 to 64"),
    Key { path: "sessions.start", doc: "when instances are started", choices: &["eager", "lazy"] },
    key("sessions.close_timeout", "how long closing everything may take"),
    key("journal.keep", "how long health transitions, calls and audit entries are kept"),
    key("journal.keep_samples", "how long samples of probes are kept"),
    key("journal.entries_max", "how many entries of each kind are kept; for samples and transitions, of each instance"),
    key(
        "journal.samples_max",
        "how many samples of probes are kept of all instances together; each has an equal share, and at least 20",
    ),
    key("journal.queue_max", "how many entries may wait to be written; more are dropped and counted"),
    key("limits.services_max", "how many services there may be"),
    key("limits.instances_max", "how many instances a service may have"),
    key("limits.batch_max", "how many changes one request may make"),
    key("limits.events_max", "how many past events can be replayed"),
    key("limits.groups_max", "how many groups there may be"),
    key("access.allow_stdio_registration", "whether services with a command may be registered over HTTP"),
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
