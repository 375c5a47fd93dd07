-- Named selections of tools.
CREATE TABLE tool_groups (
    name        TEXT PRIMARY KEY,
    title       TEXT,
    description TEXT NOT NULL,
    tenant      TEXT,
    mode        TEXT NOT NULL,
    prefix      TEXT NOT NULL,
    -- The whole declaration: what Machina reads back.
    body        TEXT NOT NULL CHECK (json_valid(body)),
    revision    INTEGER NOT NULL,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    updated_by  TEXT NOT NULL
) STRICT;
CREATE INDEX tool_groups_by_tenant ON tool_groups (tenant);

-- The services that a group names. They need not exist, so it refers to none.
CREATE TABLE tool_group_members (
    group_name TEXT NOT NULL REFERENCES tool_groups (name) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    service    TEXT NOT NULL,
    -- Names and patterns of tools; null for all.
    tools      TEXT CHECK (json_valid(tools)),
    PRIMARY KEY (group_name, position)
) STRICT;
CREATE INDEX tool_group_members_by_service ON tool_group_members (service);

-- What was answered to requests that had an idempotency key. A row without a
-- status was begun and not finished: by the process that has the file open if
-- its `run` is in it, otherwise by one that has ended since.
CREATE TABLE replies (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     TEXT NOT NULL,
    principal  TEXT NOT NULL,
    key        TEXT NOT NULL,
    -- A hash of the request: no part of it is kept.
    request    TEXT NOT NULL,
    run        TEXT NOT NULL,
    begun_at   TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    status     INTEGER,
    -- How long headers and body are together.
    bytes      INTEGER NOT NULL DEFAULT 0,
    headers    TEXT CHECK (json_valid(headers)),
    -- Null also when the answer was too large to be kept, or had to make room.
    body       BLOB,
    UNIQUE (tenant, principal, key)
) STRICT;
CREATE INDEX replies_by_expiry ON replies (expires_at);
CREATE INDEX replies_by_size ON replies (bytes);
