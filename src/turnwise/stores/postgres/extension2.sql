-- failed: when a turn of a session failed last, for those who look after the server.
CREATE TABLE IF NOT EXISTS {s}.failed (num bigint PRIMARY KEY, at float8 NOT NULL);
CREATE INDEX IF NOT EXISTS failed_at ON {s}.failed (at);
