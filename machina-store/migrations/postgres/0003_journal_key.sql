-- Samples go after a day and transitions stay for months: in one index by number alone, each transition would keep a
-- page that samples have left. By kind first, pages become empty and are used again, and a page of the journal is found
-- at once.
ALTER TABLE health_checks DROP CONSTRAINT health_checks_pkey, ADD PRIMARY KEY (kind, id);
