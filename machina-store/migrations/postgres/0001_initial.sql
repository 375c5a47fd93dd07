-- The first schema. A released migration is never edited: add the next one.
-- Columns of type JSON are what Machina reads back, word for word; JSONB, arrays
-- and the rest are for queries and for people, with U+FFFD where a text has NUL.

-- One row. Each committed batch adds one to the revision, so commits follow each
-- other. `changes` and `bytes` count what `changes` ever held; `floor` is the
-- last revision that it no longer holds whole.
CREATE TABLE meta (
    id         SMALLINT PRIMARY KEY CHECK (id = 1),
    revision   BIGINT NOT NULL,
    -- Another one whenever the content was replaced from outside.
    generation UUID   NOT NULL DEFAULT gen_random_uuid(),
    -- The last batch.
    batch      UUID   NOT NULL DEFAULT gen_random_uuid(),
    changes    BIGINT NOT NULL,
    bytes      BIGINT NOT NULL,
    floor      BIGINT NOT NULL
) WITH (fillfactor = 10);
INSERT INTO meta (id, revision, changes, bytes, floor) VALUES (1, 0, 0, 0, 0);

CREATE TABLE services (
    id                UUID PRIMARY KEY,
    name              TEXT COLLATE "C" NOT NULL UNIQUE,
    title             TEXT,
    description       TEXT NOT NULL,
    version           TEXT,
    build_type        TEXT NOT NULL,
    origin            TEXT NOT NULL,
    required          BOOLEAN NOT NULL,
    build_priority    TEXT NOT NULL,
    enabled           BOOLEAN NOT NULL,
    admin_state       TEXT NOT NULL,
    admin_reason      TEXT,
    category          TEXT,
    tags              TEXT[] NOT NULL,
    capabilities      TEXT[] NOT NULL,
    environment       TEXT,
    tenant            TEXT,
    access_level      TEXT NOT NULL,
    owner             TEXT,
    repository_url    TEXT,
    documentation_url TEXT,
    config            JSONB NOT NULL,
    labels            JSONB NOT NULL,
    metadata          JSONB NOT NULL,
    -- The whole declaration with secrets masked.
    body              JSON NOT NULL,
    revision          BIGINT NOT NULL,
    created_at        TIMESTAMPTZ NOT NULL,
    updated_at        TIMESTAMPTZ NOT NULL,
    updated_by        TEXT NOT NULL,
    words             TSVECTOR NOT NULL GENERATED ALWAYS AS (
        to_tsvector('simple', left(name || ' ' || coalesce(title, '') || ' ' || description || ' '
                                   || coalesce(category, ''), 100000))) STORED
);
CREATE INDEX services_by_build_type ON services (build_type, name);
CREATE INDEX services_by_priority ON services (build_priority, name);
CREATE INDEX services_by_required ON services (required, name);
CREATE INDEX services_by_enabled ON services (enabled, name);
CREATE INDEX services_by_category ON services (category, name);
CREATE INDEX services_by_environment ON services (environment, name);
CREATE INDEX services_by_tenant ON services (tenant, name);
CREATE INDEX services_by_created_at ON services (created_at, name);
CREATE INDEX services_by_updated_at ON services (updated_at, name);
CREATE INDEX services_by_tag ON services USING gin (tags);
CREATE INDEX services_by_capability ON services USING gin (capabilities);
CREATE INDEX services_by_word ON services USING gin (words);

-- What the masks in services.body stand for, and nothing else.
CREATE TABLE secrets (
    service_id UUID NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    place      TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (service_id, place)
);

-- The columns from protocol_version on are what the instance was last seen to
-- publish; all of them are null before that.
CREATE TABLE instances (
    id                    UUID PRIMARY KEY,
    service_id            UUID NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    position              INTEGER NOT NULL,
    endpoint_kind         TEXT NOT NULL,
    location              TEXT NOT NULL,
    weight                BIGINT NOT NULL,
    region                TEXT,
    zone                  TEXT,
    labels                JSONB NOT NULL,
    admin_state           TEXT NOT NULL,
    admin_reason          TEXT,
    -- How long one that registered itself stays without a heartbeat.
    lease_ttl_ms          BIGINT,
    protocol_version      TEXT,
    server_info           JSONB,
    instructions          TEXT,
    capabilities          JSONB,
    definitions_listed_at TIMESTAMPTZ,
    -- The five columns before it.
    published             JSON
);
CREATE INDEX instances_by_service ON instances (service_id, position);
CREATE INDEX instances_by_region ON instances (region, zone);

CREATE TABLE tools (
    instance_id   UUID NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,
    service_id    UUID NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    title         TEXT,
    description   TEXT NOT NULL,
    input_schema  JSONB NOT NULL,
    output_schema JSONB,
    tags          TEXT[] NOT NULL,
    hash          TEXT NOT NULL,
    -- Word for word as the server sent it.
    definition    JSON NOT NULL,
    PRIMARY KEY (instance_id, position)
);
CREATE INDEX tools_by_name ON tools (name);
CREATE INDEX tools_by_service ON tools (service_id, name);
CREATE INDEX tools_by_tag ON tools USING gin (tags);

-- Everything else an instance publishes, word for word.
CREATE TABLE definitions (
    instance_id UUID NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    kind        TEXT NOT NULL CHECK (kind IN ('prompt', 'resource', 'resource_template', 'rejected_tool')),
    position    INTEGER NOT NULL,
    name        TEXT,
    definition  JSON NOT NULL,
    PRIMARY KEY (instance_id, kind, position)
);

-- The health of instances as the replica said that looks after them.
CREATE TABLE instance_health (
    instance_id          UUID PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    state                TEXT,
    reason_code          TEXT,
    reason               TEXT,
    since                TIMESTAMPTZ,
    last_check           TIMESTAMPTZ,
    response_time_ms     DOUBLE PRECISION,
    consecutive_failures BIGINT,
    flapping             BOOLEAN,
    -- Null while only heartbeats came.
    body                 JSON,
    last_heartbeat       TIMESTAMPTZ
) WITH (fillfactor = 50);
CREATE INDEX instance_health_by_state ON instance_health (state);

-- The history of a service's configuration; only ever appended to.
CREATE TABLE service_configs (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_id       UUID NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    service_name     TEXT NOT NULL,
    required         BOOLEAN NOT NULL,
    build_priority   TEXT NOT NULL,
    enabled          BOOLEAN NOT NULL,
    -- Secrets are masked.
    environment_vars JSONB NOT NULL,
    config           JSONB NOT NULL,
    revision         BIGINT NOT NULL,
    updated_by       TEXT NOT NULL,
    updated_at       TIMESTAMPTZ NOT NULL
);
CREATE INDEX service_configs_by_service ON service_configs (service_id, id);

-- Named selections of tools.
CREATE TABLE tool_groups (
    name        TEXT COLLATE "C" PRIMARY KEY,
    title       TEXT,
    description TEXT NOT NULL,
    tenant      TEXT,
    mode        TEXT NOT NULL,
    prefix      TEXT NOT NULL,
    -- The whole declaration.
    body        JSON NOT NULL,
    revision    BIGINT NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL,
    updated_at  TIMESTAMPTZ NOT NULL,
    updated_by  TEXT NOT NULL
);
CREATE INDEX tool_groups_by_tenant ON tool_groups (tenant);

-- The services that a group names. They need not exist, so it refers to none.
CREATE TABLE tool_group_members (
    group_name TEXT COLLATE "C" NOT NULL REFERENCES tool_groups (name) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    service    TEXT NOT NULL,
    -- Names and patterns of tools; null for all.
    tools      TEXT[],
    PRIMARY KEY (group_name, position)
);
CREATE INDEX tool_group_members_by_service ON tool_group_members (service);

-- The latest changes, for the other replicas: a bounded tail of what was committed.
CREATE TABLE changes (
    number      BIGINT PRIMARY KEY,
    revision    BIGINT NOT NULL,
    batch       UUID NOT NULL,
    kind        TEXT NOT NULL,
    body        JSON NOT NULL,
    -- What the masks in the body stand for.
    secrets     JSON,
    -- How long all changes before this one were together.
    bytes_before BIGINT NOT NULL
);
CREATE INDEX changes_by_revision ON changes (revision, number);
CREATE INDEX changes_by_bytes ON changes (bytes_before);

-- The processes that share this database, and which shard each looks after.
CREATE TABLE replica (
    id         UUID PRIMARY KEY,
    -- The opening of the store, as in replies.run.
    run        UUID NOT NULL,
    since      TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE shard_lease (
    shard      SMALLINT PRIMARY KEY,
    replica    UUID,
    -- One more with each claim.
    epoch      BIGINT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 25);
INSERT INTO shard_lease (shard, epoch, expires_at) SELECT shard, 0, '-infinity' FROM generate_series(0, 255) AS shard;
