-- What the probes of an instance came to over a day: history when the samples
-- are gone.
CREATE TABLE health_rollups (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    service     TEXT,
    instance_id TEXT,
    until       TEXT NOT NULL,
    since       TEXT NOT NULL,
    passes      INTEGER NOT NULL,
    failures    INTEGER NOT NULL,
    durations   TEXT NOT NULL CHECK (json_valid(durations))
) STRICT;
CREATE INDEX health_rollups_by_service ON health_rollups (service, id);
CREATE INDEX health_rollups_by_time ON health_rollups (until);
