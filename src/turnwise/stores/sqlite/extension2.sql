-- What version 3 has been given after extension.sql.

-- failed: when a turn of a session failed last, for those who look after the server.
CREATE TABLE failed (num INTEGER PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX failed_at ON failed (at);

-- outbox: the channel of a messenger on which something of a session is to be sent.
CREATE TABLE outbox (num INTEGER PRIMARY KEY, channel TEXT NOT NULL);
CREATE INDEX outbox_channel ON outbox (channel);
