-- The SQLite store's statements, by name. They know no rule: stores/rules/ has them all.

-- name: header
SELECT num, body FROM header WHERE id = ?;
-- name: insert
INSERT INTO header (id, body, ready, keeper, lease, origin, expires, place)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?);
-- name: save
UPDATE header SET body = ? WHERE num = ?;
-- name: save_index
-- Who stands in the line keeps the place.
UPDATE header SET body = ?, ready = ?, keeper = ?, lease = ?, origin = ?, expires = ?,
    place = CASE WHEN ?7 IS NULL THEN NULL ELSE coalesce(place, ?7) END WHERE num = ?;
-- name: delete
DELETE FROM header WHERE num = ?;
-- name: sessions
SELECT id, body FROM header WHERE id > ? ORDER BY id LIMIT ?;
-- name: count
SELECT count(*) FROM header;

-- name: ready
-- In order of the line; what a worker has cached it may take at once.
SELECT id FROM header WHERE place IS NOT NULL AND (ready <= ? OR keeper = ?)
    ORDER BY place, ready LIMIT ?;
-- name: ready_limited
-- The same, without owners of whose turns enough are running.
SELECT h.id FROM header AS h LEFT JOIN owned AS o ON o.num = h.num
    WHERE h.place IS NOT NULL AND (h.ready <= ?1 OR h.keeper = ?2) AND (o.owner IS NULL OR
        (SELECT total(running) FROM owned WHERE owner = o.owner AND open > 0) < ?3)
    ORDER BY h.place, h.ready LIMIT ?4;
-- name: due
SELECT id FROM header WHERE ready IS NOT NULL AND place IS NULL AND ready <= ?
    ORDER BY ready LIMIT ?;
-- name: running
SELECT id, body FROM header WHERE lease IS NOT NULL LIMIT ?;
-- name: line
SELECT id, body FROM header WHERE place IS NOT NULL ORDER BY place, ready LIMIT ?;
-- name: later
SELECT id, body FROM header WHERE ready IS NOT NULL AND place IS NULL ORDER BY ready LIMIT ?;
-- name: fail
INSERT OR REPLACE INTO failed (num, at) VALUES (?, ?);
-- name: unfail
DELETE FROM failed WHERE num = ?;
-- name: to_send
INSERT OR REPLACE INTO outbox (num, channel) VALUES (?, ?);
-- name: sent
DELETE FROM outbox WHERE num = ?;
-- name: outbox
SELECT header.id FROM outbox JOIN header USING (num) WHERE outbox.channel = ? LIMIT ?;
-- name: failing
SELECT header.id FROM failed JOIN header USING (num) ORDER BY failed.at DESC LIMIT ?;
-- name: waiting
SELECT count(*) FROM header WHERE place IS NOT NULL;
-- name: first_place
SELECT min(place) FROM header WHERE place IS NOT NULL;
-- name: last_place
SELECT max(place) FROM owned WHERE owner = ? AND place IS NOT NULL;
-- name: own
INSERT OR REPLACE INTO owned (num, id, owner, used, open, running, place)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, (SELECT place FROM header WHERE num = ?1));
-- name: disown
DELETE FROM owned WHERE num = ?;
-- name: owners_sessions
SELECT o.id, o.used, h.body FROM owned AS o JOIN header AS h ON h.num = o.num
    WHERE o.owner = ? AND o.used IS NOT NULL AND (o.used, o.id) < (?, ?)
    ORDER BY o.used DESC, o.id DESC LIMIT ?;
-- name: tally
SELECT total(open), total(running) FROM owned WHERE owner = ? AND open > 0;
-- name: owner_of
SELECT owner FROM owned JOIN header USING (num) WHERE header.id = ?;
-- name: lapsed
SELECT id FROM header WHERE lease <= ? LIMIT 100;
-- name: holders
SELECT DISTINCT origin FROM header WHERE lease IS NOT NULL;
-- name: orphans
SELECT id FROM header WHERE lease IS NOT NULL AND origin = ? LIMIT 100;
-- name: expired
SELECT id FROM header WHERE expires <= ? LIMIT ?;

-- name: key
SELECT body FROM key WHERE num = ? AND key = ?;
-- name: add_key
INSERT OR REPLACE INTO key (num, key, body) VALUES (?, ?, ?);
-- name: state
SELECT body FROM state WHERE num = ? AND number = ?;
-- name: add_state
INSERT OR REPLACE INTO state (num, number, body) VALUES (?, ?, ?);
-- name: drop_state
DELETE FROM state WHERE num = ? AND number = ?;
-- name: drop_states
DELETE FROM state WHERE num = ?;
-- name: part
SELECT body FROM part WHERE num = ? AND name = ?;
-- name: save_part
INSERT OR REPLACE INTO part (num, name, body) VALUES (?, ?, ?);

-- name: add_entry
INSERT INTO entry (num, last, kind, turn, seq, at, body, origin) VALUES (?, ?, ?, ?, ?, ?, ?, ?);
-- name: turn
SELECT last, kind, turn, seq, at, body FROM entry WHERE num = ? AND turn = ? ORDER BY pos;
-- name: open
SELECT last, kind, turn, seq, at, body FROM entry AS q
    WHERE num = ? AND turn >= ? AND kind IN ('q', 'w') AND NOT EXISTS (
        SELECT 1 FROM entry AS e WHERE e.num = q.num AND e.turn = q.turn AND e.pos > q.pos
    ) ORDER BY turn LIMIT ?;
-- name: ended
SELECT last, kind, turn, seq, at, body FROM entry
    WHERE num = ? AND turn > ? AND turn < ? AND instr(?, kind) ORDER BY turn LIMIT ?;
-- name: ended_latest
SELECT last, kind, turn, seq, at, body FROM entry
    WHERE num = ? AND turn > ? AND turn < ? AND instr(?, kind) ORDER BY turn DESC LIMIT ?;
-- name: messages
SELECT last, kind, turn, seq, at, body FROM entry
    WHERE num = ? AND turn >= ? AND turn < ? AND seq IS NOT NULL ORDER BY turn LIMIT ?;
-- name: messages_latest
SELECT last, kind, turn, seq, at, body FROM entry
    WHERE num = ? AND turn >= ? AND turn < ? AND seq IS NOT NULL ORDER BY turn DESC LIMIT ?;
-- name: seq_from
-- The first turn from this one on that is in the history, and where.
SELECT turn, seq FROM entry WHERE num = ? AND turn >= ? AND seq IS NOT NULL ORDER BY turn LIMIT 1;
-- name: last_turn
SELECT turn FROM entry WHERE num = ? AND turn IS NOT NULL ORDER BY turn DESC LIMIT 1;
-- name: log
SELECT last, kind, turn, seq, at, body FROM entry WHERE num = ? AND last >= ? AND kind <> 'm'
    ORDER BY last, pos LIMIT ?;
-- name: memory
SELECT last, kind, turn, seq, at, body FROM entry
    WHERE num = ? AND turn < -? AND turn > -? ORDER BY turn DESC LIMIT ?;
-- name: memory_latest
SELECT last, kind, turn, seq, at, body FROM entry
    WHERE num = ? AND turn < -? AND turn > -? ORDER BY turn LIMIT ?;
-- name: forget_memory
DELETE FROM entry WHERE num = ? AND turn < 0 AND turn >= -?;
-- name: unlearn
DELETE FROM entry WHERE num = ? AND turn <= -? AND turn >= -?;
-- name: parts
SELECT name, body FROM part WHERE num = ? ORDER BY name;
-- name: keys
SELECT key, body FROM key WHERE num = ? ORDER BY key;
-- name: horizon
SELECT horizon FROM header WHERE num = ?;

-- name: old_entries
SELECT pos, num, last, at FROM entry WHERE at < ?1 AND (at > ?2 OR (at = ?2 AND pos > ?3))
    ORDER BY at, pos LIMIT ?4;
-- name: header_of
SELECT body FROM header WHERE num = ?;
-- name: raise_horizon
UPDATE header SET horizon = max(horizon, ?) WHERE num = ?;
-- name: delete_entry
DELETE FROM entry WHERE pos = ?;

-- name: erase
INSERT OR REPLACE INTO erasing (num, last) VALUES (?, ?);
-- name: erasing
SELECT num, last FROM erasing LIMIT 1;
-- name: erased
DELETE FROM erasing WHERE num = ?;
-- name: erase_entries
DELETE FROM entry WHERE pos IN (SELECT pos FROM entry WHERE num = ? LIMIT ?);
-- name: erase_keys
DELETE FROM key WHERE (num, key) IN (SELECT num, key FROM key WHERE num = ? LIMIT ?);
-- name: any_entry
SELECT 1 FROM entry WHERE num = ? LIMIT 1;
-- name: any_key
SELECT 1 FROM key WHERE num = ? LIMIT 1;
-- name: erase_parts
DELETE FROM part WHERE num = ?;
-- name: emptied
-- Entries that a reset has removed; those that are left of turns with a key are in capitals.
SELECT pos, last, kind, turn, seq, at, body FROM entry
    WHERE num = ? AND last <= ? AND kind NOT IN ('T', 'F', 'C', 'G') LIMIT ?;
-- name: blank_entry
UPDATE entry SET kind = ?, seq = NULL, at = NULL, body = ? WHERE pos = ?;

-- name: add_signal
INSERT INTO signal (kind, session, turn, at, origin) VALUES (?, ?, ?, ?, ?);
-- name: delete_signals
DELETE FROM signal WHERE at < ?;

-- name: tail_position
-- The last position ever given out: it goes down only where a file was restored from a backup.
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entry'), 0);
-- name: tail_signal_position
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'signal'), 0);
-- name: tail_entries
SELECT e.pos, h.id, e.last, e.kind, e.turn, e.seq, e.at, e.body
    FROM entry AS e JOIN header AS h ON h.num = e.num
    WHERE e.pos > ? AND e.origin <> ? AND e.kind <> 'm' ORDER BY e.pos LIMIT ?;
-- name: tail_signals
SELECT pos, kind, session, turn FROM signal WHERE pos > ? AND origin <> ? ORDER BY pos LIMIT ?;

-- name: fact
SELECT value FROM fact WHERE name = ?;
-- name: add_fact
INSERT OR IGNORE INTO fact (name, value) VALUES (?, ?);
-- name: save_fact
INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?);
-- name: drop_fact
DELETE FROM fact WHERE name = ?;
-- name: facts
SELECT name, value FROM fact WHERE substr(name, 1, length(?1)) = ?1;
