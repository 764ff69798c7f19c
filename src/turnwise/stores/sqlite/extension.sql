-- What version 3 has been given since: a file that lacks it gets it when it is opened, while older
-- processes may go on with theirs.

-- place: where a session stands in the line of those that are ready; see PLACED in stores/header.py.
ALTER TABLE header ADD COLUMN place INTEGER;
UPDATE header SET place = 1 WHERE ready IS NOT NULL;
DROP INDEX IF EXISTS header_ready;
CREATE INDEX header_line ON header (place, ready) WHERE place IS NOT NULL;
CREATE INDEX header_later ON header (ready) WHERE ready IS NOT NULL AND place IS NULL;

-- owned: by what the sessions of an owner are found; see Owned in stores/header.py.
CREATE TABLE owned (
    num INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    used REAL,
    open INTEGER NOT NULL,
    running INTEGER NOT NULL,
    place INTEGER
);
CREATE INDEX owned_list ON owned (owner, used, id) WHERE used IS NOT NULL;
CREATE INDEX owned_open ON owned (owner) WHERE open > 0;
CREATE INDEX owned_line ON owned (owner, place) WHERE place IS NOT NULL;
