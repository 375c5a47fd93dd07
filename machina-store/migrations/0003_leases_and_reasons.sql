-- Why the operator took a service or an instance out of use.
ALTER TABLE services ADD COLUMN admin_reason TEXT;
ALTER TABLE instances ADD COLUMN admin_reason TEXT;

-- How long an instance that registered itself stays without a heartbeat; null
-- for a declared one. Heartbeats themselves are not stored.
ALTER TABLE instances ADD COLUMN lease_ttl_ms INTEGER;
