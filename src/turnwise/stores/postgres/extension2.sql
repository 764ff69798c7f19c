-- failed: when a turn of a session failed last, for those who look after the server.
CREATE TABLE IF NOT EXISTS {s}.failed (num bigint PRIMARY KEY, at float8 NOT NULL);
CREATE INDEX IF NOT EXISTS failed_at ON {s}.failed (at);

-- outbox: the channel of a messenger on which something of a session is to be sent.
CREATE TABLE IF NOT EXISTS {s}.outbox (num bigint PRIMARY KEY, channel bytea NOT NULL);
CREATE INDEX IF NOT EXISTS outbox_channel ON {s}.outbox (channel);
