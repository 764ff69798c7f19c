-- What version 3 has been given after extension.sql.

-- failed: when a turn of a session failed last, for those who look after the server.
CREATE TABLE failed (num INTEGER PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX failed_at ON failed (at);
