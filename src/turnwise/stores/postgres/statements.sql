-- The PostgreSQL store's statements, by name; {s} is the schema. They know no rule: stores/rules/
-- has them all.

-- name: read
-- For a group of readings at once: header, idempotency key, metadata.
SELECT w.i, h.num, h.body, k.body, p.body
    FROM unnest($1::int[], $2::bytea[], $3::bytea[]) AS w(i, id, key)
    JOIN {s}.header h ON h.id = w.id
    LEFT JOIN {s}.key k ON k.num = h.num AND k.key = w.key
    LEFT JOIN {s}.part p ON p.num = h.num AND p.name = 'm';
-- name: state
SELECT t.body FROM {s}.header h JOIN {s}.state t ON t.num = h.num AND t.number = $2
    WHERE h.id = $1;
-- name: part
SELECT p.body FROM {s}.header h JOIN {s}.part p ON p.num = h.num AND p.name = $2 WHERE h.id = $1;
-- name: parts
SELECT p.name, p.body FROM {s}.header h JOIN {s}.part p ON p.num = h.num WHERE h.id = $1
    ORDER BY p.name;
-- name: tally
SELECT coalesce(sum(open), 0)::bigint, coalesce(sum(running), 0)::bigint FROM {s}.owned
    WHERE owner = $1 AND open > 0;
-- name: keys
SELECT k.key, k.body FROM {s}.header h JOIN {s}.key k ON k.num = h.num WHERE h.id = $1
    ORDER BY k.key;
-- name: horizon
SELECT z.last FROM {s}.header h JOIN {s}.horizon z ON z.num = h.num WHERE h.id = $1;
-- name: turn
SELECT e.last, e.kind, e.turn, e.seq, e.at, e.body FROM {s}.entry e
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn = $2 ORDER BY last, pos;
-- name: open
SELECT q.last, q.kind, q.turn, q.seq, q.at, q.body FROM {s}.entry q
    WHERE q.num = (SELECT num FROM {s}.header WHERE id = $1) AND q.turn >= $2
    AND q.kind IN ('q', 'w') AND NOT EXISTS (
        SELECT FROM {s}.entry e WHERE e.num = q.num AND e.turn = q.turn AND e.pos > q.pos
    ) ORDER BY q.turn LIMIT $3;
-- name: ended
SELECT last, kind, turn, seq, at, body FROM {s}.entry
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn > $2 AND turn < $3
    AND strpos($4, kind) > 0 ORDER BY turn LIMIT $5;
-- name: ended_latest
SELECT last, kind, turn, seq, at, body FROM {s}.entry
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn > $2 AND turn < $3
    AND strpos($4, kind) > 0 ORDER BY turn DESC LIMIT $5;
-- name: messages
SELECT last, kind, turn, seq, at, body FROM {s}.entry
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn >= $2 AND turn < $3
    AND seq IS NOT NULL ORDER BY turn LIMIT $4;
-- name: messages_latest
SELECT last, kind, turn, seq, at, body FROM {s}.entry
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn >= $2 AND turn < $3
    AND seq IS NOT NULL ORDER BY turn DESC LIMIT $4;
-- name: seq_from
SELECT turn, seq FROM {s}.entry
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn >= $2
    AND seq IS NOT NULL ORDER BY turn LIMIT 1;
-- name: last_turn
SELECT turn FROM {s}.entry
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn IS NOT NULL
    ORDER BY turn DESC LIMIT 1;
-- name: log
SELECT last, kind, turn, seq, at, body FROM {s}.entry
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND last >= $2 AND kind <> 'm'
    ORDER BY last, pos LIMIT $3;
-- name: memory
SELECT last, kind, turn, seq, at, body FROM {s}.entry
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn < -$2::bigint AND turn > -$3::bigint
    ORDER BY turn DESC LIMIT $4;
-- name: memory_latest
SELECT last, kind, turn, seq, at, body FROM {s}.entry
    WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn < -$2::bigint AND turn > -$3::bigint
    ORDER BY turn LIMIT $4;
-- name: forget_memory
DELETE FROM {s}.entry WHERE num = (SELECT num FROM {s}.header WHERE id = $1) AND turn < 0
    AND turn >= -$2::bigint;

-- name: commit
-- A group of acts in one statement, each only if the header is still the one it was computed from
-- (was), or if there is none (was IS NULL). Rows are locked in the order of their ids, so that two
-- groups never wait for each other.
WITH w AS MATERIALIZED (
        SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bytea[], $5::float8[],
            $6::text[], $7::float8[], $8::float8[], $9::boolean[])
        AS w(id, was, version, body, ready, keeper, lease, expires, moved)),
    l AS MATERIALIZED (
        SELECT h.num FROM {s}.header h JOIN w ON w.id = h.id ORDER BY h.id FOR UPDATE OF h),
    n AS (
        INSERT INTO {s}.header (id, version, body)
        SELECT id, version, body FROM w WHERE was IS NULL ORDER BY id
        ON CONFLICT (id) DO NOTHING RETURNING id, num),
    u AS (
        UPDATE {s}.header h SET version = w.version, body = w.body
        FROM w, (SELECT count(*) FROM l) AS locked
        WHERE h.id = w.id AND h.version = w.was RETURNING h.id, h.num),
    t AS (SELECT id, num FROM n UNION ALL SELECT id, num FROM u),
    -- Where a session gets into the line; see PLACED in stores/header.py.
    f AS MATERIALIZED (
        SELECT coalesce(min(place), 1) AS place FROM {s}.look WHERE place IS NOT NULL),
    -- rare
    o AS MATERIALIZED (
        SELECT o.*, f.place AS first FROM unnest($30::bytea[], $31::bytea[], $32::float8[],
            $33::bigint[], $34::bigint[], $35::bigint[])
        AS o(id, owner, used, open, running, nth), f),
    b AS MATERIALIZED (
        SELECT o.id, greatest(o.first, 1 + coalesce((
            SELECT max(e.place) FROM {s}.owned e WHERE e.owner = o.owner AND e.place IS NOT NULL
        ), 0)) + o.nth AS place FROM o),
    -- end of rare
    i AS (
        INSERT INTO {s}.look (num, ready, place, keeper, lease, expires)
        SELECT n.num, w.ready, CASE WHEN w.ready <= $17 + 1 THEN {place} END, w.keeper, w.lease,
            w.expires
        FROM n JOIN w USING (id) CROSS JOIN f {places} RETURNING num, place),
    m AS (
        UPDATE {s}.look k SET ready = w.ready, keeper = w.keeper, expires = w.expires, taken = 0,
            place = CASE WHEN w.ready <= $17 + 1 THEN coalesce(k.place, {place}) END,
            lease = CASE WHEN k.lease <= $17 THEN w.lease ELSE least(k.lease, w.lease) END
        FROM u JOIN w USING (id) CROSS JOIN f {places} WHERE w.moved AND k.num = u.num AND (
            k.ready IS DISTINCT FROM w.ready OR k.keeper IS DISTINCT FROM w.keeper
            OR k.expires <> w.expires OR w.lease < coalesce(k.lease, 'infinity')
            OR k.lease <= $17) RETURNING k.num, k.place),
    e AS (
        INSERT INTO {s}.entry (num, last, kind, turn, seq, at, body)
        SELECT t.num, x.last, x.kind, x.turn, x.seq, x.at, x.body
        FROM unnest($10::bytea[], $11::bigint[], $12::text[], $13::bigint[], $14::bigint[],
            $15::float8[], $16::bytea[]) WITH ORDINALITY
        AS x(id, last, kind, turn, seq, at, body, o) JOIN t USING (id) ORDER BY x.o)
    -- rare: what few acts have; a group without it is committed by `commit_plain`.
    , k AS (
        INSERT INTO {s}.key (num, key, body) SELECT t.num, x.key, x.body
        FROM unnest($18::bytea[], $19::bytea[], $20::bytea[]) AS x(id, key, body)
        JOIN t USING (id)),
    s AS (
        INSERT INTO {s}.state (num, number, body) SELECT t.num, x.number, x.body
        FROM unnest($21::bytea[], $22::bigint[], $23::bytea[]) AS x(id, number, body)
        JOIN t USING (id)),
    d AS (
        DELETE FROM {s}.state o
        USING unnest($21::bytea[], $22::bigint[]) AS x(id, number) JOIN t USING (id)
        WHERE o.num = t.num AND o.number = x.number - $24),
    p AS (
        INSERT INTO {s}.part (num, name, body) SELECT t.num, x.name, x.body
        FROM unnest($25::bytea[], $26::text[], $27::bytea[]) AS x(id, name, body)
        JOIN t USING (id)
        ON CONFLICT (num, name) DO UPDATE SET body = excluded.body),
    x AS (
        INSERT INTO {s}.erasing (num, last) SELECT t.num, y.last
        FROM unnest($28::bytea[], $29::bigint[]) AS y(id, last) JOIN t USING (id)
        ON CONFLICT (num) DO UPDATE SET last = excluded.last RETURNING num),
    z AS (DELETE FROM {s}.state c USING x WHERE c.num = x.num),
    g AS (
        DELETE FROM {s}.entry e
        USING unnest($36::bytea[], $37::bigint[], $38::bigint[]) AS y(id, first, last)
        JOIN t USING (id)
        WHERE e.num = t.num AND e.turn <= -y.first AND e.turn >= -y.last),
    q AS (
        INSERT INTO {s}.owned AS old (num, id, owner, used, open, running, place)
        SELECT t.num, o.id, o.owner, o.used, o.open, o.running, c.place
        FROM o JOIN t USING (id)
        LEFT JOIN (SELECT num, place FROM i UNION ALL SELECT num, place FROM m) AS c USING (num)
        ON CONFLICT (num) DO UPDATE SET owner = excluded.owner, used = excluded.used,
            open = excluded.open, running = excluded.running,
            place = CASE WHEN old.num IN (SELECT num FROM m) THEN excluded.place ELSE old.place END)
    , y AS (
        INSERT INTO {s}.failed AS old (num, at)
        SELECT t.num, v.at FROM unnest($39::bytea[], $40::float8[]) AS v(id, at) JOIN t USING (id)
        ON CONFLICT (num) DO UPDATE SET at = greatest(old.at, excluded.at)),
    c AS MATERIALIZED (
        SELECT t.num, v.channel FROM unnest($41::bytea[], $42::bytea[]) AS v(id, channel)
        JOIN t USING (id)),
    ca AS (
        INSERT INTO {s}.outbox (num, channel) SELECT num, channel FROM c WHERE channel IS NOT NULL
        ON CONFLICT (num) DO UPDATE SET channel = excluded.channel),
    cb AS (
        DELETE FROM {s}.outbox x USING c WHERE x.num = c.num AND c.channel IS NULL)
    -- end of rare
SELECT id FROM t;
-- name: delete
WITH h AS (DELETE FROM {s}.header WHERE id = $1 AND version = $2 RETURNING num),
    l AS (DELETE FROM {s}.look WHERE num = (SELECT num FROM h)),
    o AS (DELETE FROM {s}.owned WHERE num = (SELECT num FROM h)),
    f AS (DELETE FROM {s}.failed WHERE num = (SELECT num FROM h)),
    c AS (DELETE FROM {s}.outbox WHERE num = (SELECT num FROM h)),
    e AS (INSERT INTO {s}.erasing (num, last) SELECT num, NULL FROM h
        ON CONFLICT (num) DO UPDATE SET last = NULL)
SELECT num FROM h;

-- name: take
-- Each ready session is given to one worker for two seconds.
UPDATE {s}.look k SET taken = $2::float8 + 2
    FROM (
        SELECT num FROM {s}.look
        WHERE place IS NOT NULL AND (ready <= $2 OR keeper = $1) AND taken <= $2
        ORDER BY place, ready LIMIT $3 FOR UPDATE SKIP LOCKED
    ) AS f JOIN {s}.header h ON h.num = f.num
    WHERE k.num = f.num RETURNING h.id, k.place, k.ready;
-- name: take_limited
-- The same, without owners of whose turns enough are running.
UPDATE {s}.look k SET taken = $2::float8 + 2
    FROM (
        SELECT l.num FROM {s}.look l
        WHERE l.place IS NOT NULL AND (l.ready <= $2 OR l.keeper = $1) AND l.taken <= $2
        AND coalesce((
            SELECT (
                SELECT coalesce(sum(r.running), 0) + count(*) FILTER (
                    WHERE r.place < l.place OR g.taken > $2)
                FROM {s}.owned r LEFT JOIN {s}.look g ON g.num = r.num AND g.place IS NOT NULL
                WHERE r.owner = o.owner AND r.open > 0
            ) < $4
            FROM {s}.owned o WHERE o.num = l.num), true)
        ORDER BY l.place, l.ready LIMIT $3 FOR UPDATE SKIP LOCKED
    ) AS f JOIN {s}.header h ON h.num = f.num
    WHERE k.num = f.num RETURNING h.id, k.place, k.ready;
-- name: take_due
-- Those that are not in the line, because they were to be ready later.
UPDATE {s}.look k SET taken = $1::float8 + 2
    FROM (
        SELECT num FROM {s}.look
        WHERE ready IS NOT NULL AND place IS NULL AND ready <= $1 AND taken <= $1
        ORDER BY ready LIMIT $2 FOR UPDATE SKIP LOCKED
    ) AS f JOIN {s}.header h ON h.num = f.num
    WHERE k.num = f.num RETURNING h.id, 0::bigint, k.ready;
-- name: any_ready
SELECT EXISTS (SELECT FROM {s}.look
        WHERE place IS NOT NULL AND (ready <= $2 OR keeper = $1) AND taken <= $2),
    EXISTS (SELECT FROM {s}.look
        WHERE ready IS NOT NULL AND place IS NULL AND ready <= $2 AND taken <= $2);
-- name: owners_sessions
SELECT o.id, o.used, h.body FROM {s}.owned o JOIN {s}.header h USING (num)
    WHERE o.owner = $1 AND o.used IS NOT NULL AND (o.used, o.id) < ($2, $3)
    ORDER BY o.used DESC, o.id DESC LIMIT $4;
-- name: give_back
UPDATE {s}.look k SET taken = 0 FROM {s}.header h WHERE h.num = k.num AND h.id = ANY($1::bytea[]);
-- name: lapsed
SELECT h.id FROM {s}.look l JOIN {s}.header h USING (num) WHERE l.lease <= $1 LIMIT 100;
-- name: expired
SELECT h.id FROM {s}.look l JOIN {s}.header h USING (num) WHERE l.expires <= $1 LIMIT $2;
-- name: running
SELECT h.id, h.body FROM {s}.look l JOIN {s}.header h USING (num) WHERE l.lease IS NOT NULL
    ORDER BY l.lease DESC LIMIT $1;
-- name: line
SELECT h.id, h.body FROM {s}.look l JOIN {s}.header h USING (num) WHERE l.place IS NOT NULL
    ORDER BY l.place, l.ready LIMIT $1;
-- name: later
SELECT h.id, h.body FROM {s}.look l JOIN {s}.header h USING (num)
    WHERE l.ready IS NOT NULL AND l.place IS NULL ORDER BY l.ready LIMIT $1;
-- name: outbox
SELECT h.id FROM {s}.outbox x JOIN {s}.header h USING (num) WHERE x.channel = $1 LIMIT $2;
-- name: failing
SELECT h.id FROM {s}.failed f JOIN {s}.header h USING (num) ORDER BY f.at DESC LIMIT $1;
-- name: waiting
SELECT count(*) FROM {s}.look WHERE place IS NOT NULL;
-- name: sessions
SELECT id, body FROM {s}.header WHERE id > $1 ORDER BY id LIMIT $2;
-- name: versions
SELECT id, version, body FROM {s}.header WHERE id = ANY($1::bytea[]);
-- name: count
-- Exactly for few sessions, and for many as PostgreSQL remembers it.
SELECT (SELECT count(*) FROM (SELECT FROM {s}.header LIMIT $1) AS few),
    (SELECT reltuples::bigint FROM pg_class WHERE oid = '{s}.header'::regclass);

-- name: old_entries
SELECT e.num, e.last, e.pos, e.at, h.body FROM {s}.entry e JOIN {s}.header h USING (num)
    WHERE e.at < $1 AND e.at >= $2 ORDER BY e.at LIMIT $3;
-- name: trim
WITH x AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(num, last, pos)),
    d AS (DELETE FROM {s}.entry e USING x
        WHERE e.num = x.num AND e.last = x.last AND e.pos = x.pos RETURNING e.num, e.last)
INSERT INTO {s}.horizon (num, last) SELECT num, max(last) FROM d GROUP BY num ORDER BY num
    ON CONFLICT (num) DO UPDATE SET last = greatest(horizon.last, excluded.last);
-- name: erasing
SELECT num, last FROM {s}.erasing LIMIT 1;
-- name: erased
DELETE FROM {s}.erasing WHERE num = $1 AND last IS NOT DISTINCT FROM $2;
-- name: erase_entries
DELETE FROM {s}.entry WHERE (num, last, pos) IN (
    SELECT num, last, pos FROM {s}.entry WHERE num = $1 LIMIT $2);
-- name: erase_keys
DELETE FROM {s}.key WHERE (num, key) IN (SELECT num, key FROM {s}.key WHERE num = $1 LIMIT $2);
-- name: erase_rest
WITH s AS (DELETE FROM {s}.state WHERE num = $1), z AS (DELETE FROM {s}.horizon WHERE num = $1)
DELETE FROM {s}.part WHERE num = $1;
-- name: emptied
SELECT pos, last, kind, turn, seq, at, body FROM {s}.entry
    WHERE num = $1 AND last <= $2 AND kind NOT IN ('T', 'F', 'C', 'G') LIMIT $3;
-- name: empty
WITH d AS (DELETE FROM {s}.entry WHERE num = $1 AND pos = ANY($2::bigint[]))
UPDATE {s}.entry e SET kind = x.kind, seq = NULL, at = NULL, body = x.body
    FROM unnest($3::bigint[], $4::text[], $5::bytea[]) AS x(pos, kind, body)
    WHERE e.num = $1 AND e.pos = x.pos;

-- name: time
SELECT extract(epoch FROM clock_timestamp())::float8;
-- name: fact
SELECT value FROM {s}.fact WHERE name = $1;
-- name: add_fact
INSERT INTO {s}.fact (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING;
-- name: drop_fact
DELETE FROM {s}.fact WHERE name = $1;
-- name: facts
SELECT name, value FROM {s}.fact WHERE starts_with(name, $1);
-- name: set_fact
INSERT INTO {s}.fact (name, value) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value;
