-- What each attempt of a call came to, and its arguments where the operator keeps them.
ALTER TABLE calls ADD COLUMN tried JSON NOT NULL DEFAULT '[]', ADD COLUMN arguments JSON;
-- What others may read, and have made of it, stays as it is.
CREATE OR REPLACE VIEW tool_executions AS
    SELECT id, service, instance_id, tool AS tool_name, success, error, duration_ms, executed_at, arguments AS input_data
    FROM calls;
