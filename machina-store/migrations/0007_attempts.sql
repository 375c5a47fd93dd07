-- What each attempt of a call came to, and its arguments where the operator keeps them.
ALTER TABLE calls ADD COLUMN tried TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tried));
ALTER TABLE calls ADD COLUMN arguments TEXT CHECK (json_valid(arguments));
DROP VIEW tool_executions;
CREATE VIEW tool_executions AS
    SELECT id, service, instance_id, tool AS tool_name, success, error, duration_ms, executed_at, arguments AS input_data
    FROM calls;
