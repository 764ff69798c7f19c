-- What the schema has been given since it was first made; older processes may go on with theirs.

-- place: where a session stands in the line of those that are ready; see PLACED in stores/header.py.
ALTER TABLE {s}.look ADD COLUMN IF NOT EXISTS place bigint;
UPDATE {s}.look SET place = 1 WHERE ready IS NOT NULL;
DROP INDEX IF EXISTS {s}.look_ready;
CREATE INDEX IF NOT EXISTS look_line ON {s}.look (place, ready) WHERE place IS NOT NULL;
CREATE INDEX IF NOT EXISTS look_later ON {s}.look (ready)
    WHERE ready IS NOT NULL AND place IS NULL;

-- owned: by what the sessions of an owner are found; see Owned in stores/header.py.
CREATE TABLE IF NOT EXISTS {s}.owned (
    num bigint PRIMARY KEY,
    id bytea NOT NULL,
    owner bytea NOT NULL,
    used float8,
    open bigint NOT NULL,
    running bigint NOT NULL,
    place bigint
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS owned_list ON {s}.owned (owner, used, id) WHERE used IS NOT NULL;
CREATE INDEX IF NOT EXISTS owned_open ON {s}.owned (owner) WHERE open > 0;
CREATE INDEX IF NOT EXISTS owned_line ON {s}.owned (owner, place) WHERE place IS NOT NULL;
