-- The journal outlives the services it speaks of, so it names them and refers to nothing.
CREATE TABLE health_checks (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind             TEXT NOT NULL CHECK (kind IN ('transition', 'sample')),
    service          TEXT,
    instance_id      UUID,
    -- The state after a transition, the outcome of a probe.
    status           TEXT NOT NULL,
    state_before     TEXT,
    reason           TEXT,
    response_time_ms DOUBLE PRECISION,
    error_message    TEXT,
    checked_at       TIMESTAMPTZ NOT NULL
);
CREATE INDEX health_checks_by_service ON health_checks (kind, service, id);
CREATE INDEX health_checks_by_instance ON health_checks (kind, instance_id, id);
CREATE INDEX health_checks_by_time ON health_checks (kind, checked_at);

-- What the probes of an instance came to over a day.
CREATE TABLE health_rollups (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service     TEXT,
    instance_id UUID,
    until       TIMESTAMPTZ NOT NULL,
    since       TIMESTAMPTZ NOT NULL,
    passes      BIGINT NOT NULL,
    failures    BIGINT NOT NULL,
    durations   BIGINT[] NOT NULL
);
CREATE INDEX health_rollups_by_service ON health_rollups (service, id);
CREATE INDEX health_rollups_by_instance ON health_rollups (instance_id, id);
CREATE INDEX health_rollups_by_time ON health_rollups (until);

CREATE TABLE calls (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service     TEXT,
    instance_id UUID,
    tool        TEXT NOT NULL,
    principal   TEXT NOT NULL,
    duration_ms DOUBLE PRECISION NOT NULL,
    attempts    BIGINT NOT NULL,
    success     BOOLEAN NOT NULL,
    error       TEXT,
    executed_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX calls_by_service ON calls (service, id);
CREATE INDEX calls_by_instance ON calls (instance_id, id);
CREATE INDEX calls_by_tool ON calls (tool, id);
CREATE INDEX calls_by_time ON calls (executed_at);

-- What channels were told of alerts.
CREATE TABLE alerts (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service     TEXT,
    instance_id UUID,
    at          TIMESTAMPTZ NOT NULL,
    channel     TEXT NOT NULL,
    message     TEXT NOT NULL,
    alert       JSON NOT NULL
);
CREATE INDEX alerts_by_service ON alerts (service, id);
CREATE INDEX alerts_by_instance ON alerts (instance_id, id);
CREATE INDEX alerts_by_time ON alerts (at);

CREATE TABLE audit (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service     TEXT,
    instance_id UUID,
    at          TIMESTAMPTZ NOT NULL,
    principal   TEXT NOT NULL,
    action      TEXT NOT NULL,
    detail      JSON NOT NULL
);
CREATE INDEX audit_by_service ON audit (service, id);
CREATE INDEX audit_by_instance ON audit (instance_id, id);
CREATE INDEX audit_by_time ON audit (at);

-- What was answered to requests that had an idempotency key. A row without a
-- status was begun and not finished: by the process that has its `run`.
CREATE TABLE replies (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     TEXT NOT NULL,
    principal  TEXT NOT NULL,
    key        TEXT NOT NULL,
    -- A hash of the request: no part of it is kept.
    request    TEXT NOT NULL,
    run        UUID NOT NULL,
    begun_at   TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    status     INTEGER,
    -- How long headers and body are together.
    bytes      BIGINT NOT NULL DEFAULT 0,
    headers    JSON,
    -- Null also when the answer was too large to be kept, or had to make room.
    body       BYTEA,
    UNIQUE (tenant, principal, key)
);
CREATE INDEX replies_by_expiry ON replies (expires_at);
CREATE INDEX replies_by_size ON replies (id) INCLUDE (bytes) WHERE bytes > 0;

-- The names that other registries use, for the queries people already have.
CREATE VIEW tool_executions AS
    SELECT id, service, instance_id, tool AS tool_name, success, error, duration_ms, executed_at FROM calls;
CREATE VIEW tool_invocations AS
    SELECT id, service AS server, tool AS tool_name, executed_at AS invoked_at, duration_ms, success FROM calls;
CREATE VIEW server_health_metrics AS
    SELECT id, service AS server, instance_id, response_time_ms, error_message, checked_at
    FROM health_checks WHERE kind = 'sample';
CREATE VIEW mcp_servers AS
    SELECT s.id, s.name, coalesce(s.title, s.name) AS display_name, s.description, s.origin AS server_type,
           i.location AS endpoint_url, s.version, s.created_at, s.updated_at
    FROM services AS s LEFT JOIN instances AS i ON i.service_id = s.id AND i.position = 0;
-- The latest configuration, one row for each key.
CREATE VIEW service_config_values AS
    SELECT c.id, c.service_id, c.service_name, v.key AS config_key, v.value AS config_value, c.updated_by, c.updated_at
    FROM (SELECT DISTINCT ON (service_id) * FROM service_configs ORDER BY service_id, id DESC) AS c,
         LATERAL jsonb_each_text(c.config) AS v;
-- One coarse word for each instance, in the sense of Machina's own `status`.
CREATE VIEW instance_status AS
    SELECT i.id, i.service_id, i.position, i.endpoint_kind, i.location, i.region, i.zone, h.state, h.reason, h.since,
           h.last_check, h.last_heartbeat,
           CASE
               WHEN i.admin_state = 'maintenance' THEN 'maintenance'
               WHEN i.admin_state <> 'enabled' THEN 'disabled'
               WHEN h.state = 'healthy' AND h.reason_code IN ('degraded', 'auth_required') THEN 'degraded'
               WHEN h.state = 'healthy' THEN 'healthy'
               WHEN h.state IN ('suspect', 'recovering') THEN 'degraded'
               WHEN h.state IN ('unhealthy', 'crash_loop', 'expired') THEN 'unhealthy'
               ELSE 'unknown'
           END AS status
    FROM instances AS i LEFT JOIN instance_health AS h ON h.instance_id = i.id;
-- Services with their status, as people ask for them.
CREATE VIEW service_overview AS
    SELECT s.id, s.name, s.build_type, s.required, s.build_priority, s.tags, s.category, s.environment, s.tenant,
           s.admin_state, s.description, first.location, first.endpoint_kind AS protocol, s.config,
           coalesce(n.instances, 0) AS instances, coalesce(n.healthy, 0) AS healthy_instances,
           CASE
               WHEN s.admin_state = 'maintenance' THEN 'maintenance'
               WHEN s.admin_state <> 'enabled' THEN 'disabled'
               WHEN coalesce(n.active, 0) = 0 AND n.maintenance > 0 THEN 'maintenance'
               WHEN n.instances > 0 AND n.active = 0 THEN 'disabled'
               WHEN n.active > 0 AND n.healthy = n.active THEN 'healthy'
               WHEN n.active > 0 AND n.unhealthy = n.active THEN 'unhealthy'
               WHEN n.healthy + n.degraded > 0 THEN 'degraded'
               ELSE 'unknown'
           END AS status,
           s.revision, s.created_at, s.updated_at, s.updated_by
    FROM services AS s
    LEFT JOIN instances AS first ON first.service_id = s.id AND first.position = 0
    LEFT JOIN (
        SELECT service_id, count(*) AS instances,
               count(*) FILTER (WHERE status NOT IN ('disabled', 'maintenance')) AS active,
               count(*) FILTER (WHERE status = 'maintenance') AS maintenance,
               count(*) FILTER (WHERE status = 'healthy') AS healthy,
               count(*) FILTER (WHERE status = 'degraded') AS degraded,
               count(*) FILTER (WHERE status = 'unhealthy') AS unhealthy
        FROM instance_status GROUP BY service_id) AS n ON n.service_id = s.id;
