-- Every way of reading the journal has its index: newest entries of a kind, and of an instance.
CREATE INDEX health_checks_by_kind ON health_checks (kind, id);
CREATE INDEX health_rollups_by_instance ON health_rollups (instance_id, id);
CREATE INDEX alerts_by_instance ON alerts (instance_id, id);
CREATE INDEX audit_by_instance ON audit (instance_id, id);
