-- The PostgreSQL store's tables; {s} is their schema. stores/rows.py says what a header and an entry
-- are. Ids and keys are bytes: a text of PostgreSQL holds no NUL. Times are seconds since 1970.
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE {s}.fact (name text PRIMARY KEY, value bytea NOT NULL);
-- header: rewritten by every act, so no column that changes is in an index, and rows have room to
-- be rewritten in their page. version: compared by every act.
CREATE TABLE {s}.header (
    num bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id bytea NOT NULL UNIQUE,
    version text NOT NULL,
    body bytea NOT NULL
) WITH (fillfactor = 50);
-- look: what sessions are found by, see Index in stores/header.py. taken: until then another worker
-- has been given this ready session. lease: when it is to be looked at for a claim that has lapsed;
-- the claim itself may end later, or may have ended long ago, so that a turn need not write here.
CREATE TABLE {s}.look (
    num bigint PRIMARY KEY,
    ready float8,
    keeper text,
    lease float8,
    expires float8 NOT NULL,
    taken float8 NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX look_ready ON {s}.look (ready) WHERE ready IS NOT NULL;
CREATE INDEX look_lease ON {s}.look (lease) WHERE lease IS NOT NULL;
CREATE INDEX look_expires ON {s}.look (expires);
-- entry: appended only. Serials are not an order of commits, so readers go by a session's events; `pos`
-- orders only the entries of one session.
CREATE TABLE {s}.entry (
    num bigint NOT NULL,
    last bigint NOT NULL,
    pos bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    turn bigint,
    seq bigint,
    at float8,
    body bytea NOT NULL,
    PRIMARY KEY (num, last, pos)
);
CREATE INDEX entry_turn ON {s}.entry (num, turn) WHERE turn IS NOT NULL;
CREATE INDEX entry_live ON {s}.entry (at) WHERE at IS NOT NULL;
CREATE TABLE {s}.key (num bigint, key bytea, body bytea NOT NULL, PRIMARY KEY (num, key));
CREATE TABLE {s}.state (num bigint, number bigint, body bytea NOT NULL, PRIMARY KEY (num, number));
CREATE TABLE {s}.part (num bigint, name text, body bytea NOT NULL, PRIMARY KEY (num, name));
-- horizon: the newest event of a session that retention has removed.
CREATE TABLE {s}.horizon (num bigint PRIMARY KEY, last bigint NOT NULL);
-- erasing: what is still to be removed, in slices: entries up to this event, or all (NULL).
CREATE TABLE {s}.erasing (num bigint PRIMARY KEY, last bigint);
