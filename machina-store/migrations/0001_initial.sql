-- The first schema. A released migration is never edited: add the next one.
-- Times are RFC 3339 UTC with milliseconds, so they sort as text. JSON is text.

CREATE TABLE meta (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO meta (id, revision) VALUES (1, 0);

CREATE TABLE services (
    id                TEXT PRIMARY KEY,
    name              TEXT NOT NULL UNIQUE,
    title             TEXT,
    description       TEXT NOT NULL,
    version           TEXT,
    build_type        TEXT NOT NULL,
    origin            TEXT NOT NULL,
    required          INTEGER NOT NULL CHECK (required IN (0, 1)),
    build_priority    TEXT NOT NULL,
    enabled           INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    admin_state       TEXT NOT NULL,
    category          TEXT,
    tags              TEXT NOT NULL CHECK (json_valid(tags)),
    capabilities      TEXT NOT NULL CHECK (json_valid(capabilities)),
    environment       TEXT,
    tenant            TEXT,
    access_level      TEXT NOT NULL,
    owner             TEXT,
    repository_url    TEXT,
    documentation_url TEXT,
    -- The whole declaration with secrets masked: what Machina reads back.
    body              TEXT NOT NULL CHECK (json_valid(body)),
    revision          INTEGER NOT NULL,
    created_at        TEXT NOT NULL,
    updated_at        TEXT NOT NULL,
    updated_by        TEXT NOT NULL
) STRICT;
CREATE INDEX services_by_build_type ON services (build_type);
CREATE INDEX services_by_tenant ON services (tenant);
CREATE INDEX services_by_environment ON services (environment);

-- What the masks in services.body stand for, and nothing else.
CREATE TABLE secrets (
    service_id TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    place      TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (service_id, place)
) STRICT, WITHOUT ROWID;

-- The columns from protocol_version on are what the instance was last seen to
-- publish; all of them are null before that.
CREATE TABLE instances (
    id                    TEXT PRIMARY KEY,
    service_id            TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    position              INTEGER NOT NULL,
    endpoint_kind         TEXT NOT NULL,
    location              TEXT NOT NULL,
    weight                INTEGER NOT NULL,
    region                TEXT,
    zone                  TEXT,
    labels                TEXT NOT NULL CHECK (json_valid(labels)),
    admin_state           TEXT NOT NULL,
    protocol_version      TEXT,
    server_info           TEXT CHECK (json_valid(server_info)),
    instructions          TEXT,
    capabilities          TEXT CHECK (json_valid(capabilities)),
    definitions_listed_at TEXT
) STRICT;
CREATE INDEX instances_by_service ON instances (service_id, position);
CREATE INDEX instances_by_region ON instances (region, zone);

CREATE TABLE tools (
    instance_id   TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,
    service_id    TEXT NOT NULL,
    name          TEXT NOT NULL,
    title         TEXT,
    description   TEXT NOT NULL,
    input_schema  TEXT NOT NULL CHECK (json_valid(input_schema)),
    output_schema TEXT CHECK (json_valid(output_schema)),
    tags          TEXT NOT NULL CHECK (json_valid(tags)),
    hash          TEXT NOT NULL,
    -- Word for word as the server sent it.
    definition    TEXT NOT NULL CHECK (json_valid(definition)),
    PRIMARY KEY (instance_id, position)
) STRICT;
CREATE INDEX tools_by_name ON tools (name);
CREATE INDEX tools_by_service ON tools (service_id);

-- Everything else an instance publishes, word for word.
CREATE TABLE definitions (
    instance_id TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    kind        TEXT NOT NULL CHECK (kind IN ('prompt', 'resource', 'resource_template', 'rejected_tool')),
    position    INTEGER NOT NULL,
    name        TEXT,
    definition  TEXT NOT NULL CHECK (json_valid(definition)),
    PRIMARY KEY (instance_id, kind, position)
) STRICT;

-- The history of a service's configuration; only ever appended to.
CREATE TABLE service_configs (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    service_id       TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    service_name     TEXT NOT NULL,
    required         INTEGER NOT NULL CHECK (required IN (0, 1)),
    build_priority   TEXT NOT NULL,
    enabled          INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    -- Secrets are masked.
    environment_vars TEXT NOT NULL CHECK (json_valid(environment_vars)),
    config           TEXT NOT NULL CHECK (json_valid(config)),
    revision         INTEGER NOT NULL,
    updated_by       TEXT NOT NULL,
    updated_at       TEXT NOT NULL
) STRICT;
CREATE INDEX service_configs_by_service ON service_configs (service_id, id);

-- The journal outlives the services it speaks of, so it names them and refers to nothing.
CREATE TABLE health_checks (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    kind             TEXT NOT NULL CHECK (kind IN ('transition', 'sample')),
    service          TEXT,
    instance_id      TEXT,
    -- The state after a transition, the outcome of a probe.
    status           TEXT NOT NULL,
    state_before     TEXT,
    reason           TEXT,
    response_time_ms REAL,
    error_message    TEXT,
    checked_at       TEXT NOT NULL
) STRICT;
CREATE INDEX health_checks_by_service ON health_checks (kind, service, id);
CREATE INDEX health_checks_by_instance ON health_checks (kind, instance_id, id);
CREATE INDEX health_checks_by_time ON health_checks (kind, checked_at);

CREATE TABLE calls (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    service     TEXT,
    instance_id TEXT,
    tool        TEXT NOT NULL,
    principal   TEXT NOT NULL,
    duration_ms REAL NOT NULL,
    attempts    INTEGER NOT NULL,
    success     INTEGER NOT NULL CHECK (success IN (0, 1)),
    error       TEXT,
    executed_at TEXT NOT NULL
) STRICT;
CREATE INDEX calls_by_service ON calls (service, id);
CREATE INDEX calls_by_instance ON calls (instance_id, id);
CREATE INDEX calls_by_tool ON calls (tool, id);
CREATE INDEX calls_by_time ON calls (executed_at);

CREATE TABLE audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    principal   TEXT NOT NULL,
    action      TEXT NOT NULL,
    service     TEXT,
    instance_id TEXT,
    detail      TEXT NOT NULL CHECK (json_valid(detail)),
    at          TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_service ON audit (service, id);
CREATE INDEX audit_by_time ON audit (at);

-- The names that other registries use, for the queries people already have.
CREATE VIEW tool_executions AS
    SELECT id, service, tool AS tool_name, error, duration_ms, executed_at FROM calls;
CREATE VIEW tool_invocations AS
    SELECT id, service AS server, tool AS tool_name, executed_at AS invoked_at, duration_ms, success FROM calls;
CREATE VIEW server_health_metrics AS
    SELECT id, service AS server, instance_id, response_time_ms, error_message, checked_at
    FROM health_checks WHERE kind = 'sample';
CREATE VIEW mcp_servers AS
    SELECT s.id, s.name, coalesce(s.title, s.name) AS display_name, s.description, s.origin AS server_type,
           i.location AS endpoint_url, s.version, s.created_at, s.updated_at
    FROM services AS s LEFT JOIN instances AS i ON i.service_id = s.id AND i.position = 0;
