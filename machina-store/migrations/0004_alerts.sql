-- What channels were told of alerts: history, and what is not sent again after
-- a restart.
CREATE TABLE alerts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    service     TEXT,
    instance_id TEXT,
    at          TEXT NOT NULL,
    channel     TEXT NOT NULL,
    message     TEXT NOT NULL,
    alert       TEXT NOT NULL CHECK (json_valid(alert))
) STRICT;
CREATE INDEX alerts_by_service ON alerts (service, id);
CREATE INDEX alerts_by_time ON alerts (at);
