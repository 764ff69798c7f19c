-- What acts share: names of keys, a session's row, its log, the clock. Of what stands here between
-- two empty lines, each script gets put before it what it uses.
--
-- KEYS[1]  the base of a partition's keys; every key is the base and a suffix, so all of a
--          session's keys, its ready queue and its leases are in one slot of a Cluster
-- ARGV[1]  the process that asks   ARGV[2]  microseconds to add to the server's clock (tests)
-- ARGV[3]  PUBLISH, or SPUBLISH where there are sharded channels
-- ARGV[4]  the session's id
-- ARGV[5]  1 when this operation may have been done before, its answer lost on the way
--
-- A script checks before it writes, so an act that is refused has changed nothing; and for lack of
-- memory Redis refuses only a script that has not written yet. It answers {code, result, notices}.
--
-- A session's keys: s a hash of its row, its turns ("t5" a header, "q5" the question while open,
-- "e5" error, "u5" usage) and its idempotency keys ("k:key"); q the mailbox (a list of the numbers
-- of open turns, the head first), m its messages (a list of "turn body"), l its log (a stream; an
-- entry holds the events of an act, its id is the number of the last: e "first\ntype\nturn\ntail
-- \ntype\nturn\ntail ...", a when).
-- Of all sessions: ids, expiry, ready (since when), leases (until when), trim (oldest event).
-- Calls are what a script's time goes into: what an act writes to the hash is written at its end.
-- Times are microseconds since 1970; as numbers (above 10^14) they must not be concatenated.

local call = redis.call
-- What is published is a hint, so it is sent with redis.pcall: where it cannot be sent, an act that
-- has begun to write still comes to its end.
local base, origin, verb, session = KEYS[1], ARGV[1], ARGV[3], ARGV[4]
local again = ARGV[5] == '1'
local arg = 5
local stamp = call('TIME')
local now = stamp[1] * 1000000 + stamp[2] + ARGV[2]
local S, Q, M, L
local row, changes, open
local notices = {}

local READY = base .. 'ready'

local LEASES = base .. 'leases'

local IDS = base .. 'ids'

local EXPIRY = base .. 'expiry'

local TRIM = base .. 'trim'

-- A time as a text that can be concatenated, and that Redis need not make of a number.
local function micros(time)
  return string.format('%.0f', time)
end

local now_text = micros(now)

-- The next argument of the act.
local function take()
  arg = arg + 1
  return ARGV[arg]
end

local function number()
  return tonumber(take())
end

-- The next argument, or false where it is empty.
local function optional()
  local value = take()
  return value ~= '' and value
end

local function done(result)
  return {'ok', result or '', notices}
end

local function refused(code)
  return {code, '', {}}
end

-- The row of a session

local FIELDS = {  -- the first seven are texts, the others numbers
  'name', 'metadata', 'token', 'keeper', 'state', 'reset_op', 'save_op',
  'created', 'ttl', 'expires', 'generation', 'last_event', 'floor', 'last_turn', 'base_turn',
  'last_seq', 'base_seq', 'running', 'stop', 'lease', 'reserved', 'written', 'pinned'
}

-- From here on the act is about session `id`; returns its row as it is stored, or nil.
local function enter(id)
  session, changes, row, open = id, {}, nil, 0
  S, Q, M, L = base .. 's:' .. id, base .. 'q:' .. id, base .. 'm:' .. id, base .. 'l:' .. id
  local found = call('HMGET', S, unpack(FIELDS))
  if found[8] then
    row = {}
    for i = 1, 7 do row[FIELDS[i]] = found[i] end
    for i = 8, #FIELDS do row[FIELDS[i]] = found[i] and tonumber(found[i]) end
    open = call('LLEN', Q)
  end
  return row
end

-- The same for acts that only sessions alive may undergo; one with open turns never expires.
local function find()
  local found = enter(session)
  if found and found.expires <= now and not found.token and open == 0 then
    return nil
  end
  return found
end

local function set(field, value)
  row[field] = value
  changes[field] = value
end

-- Write what was changed of the hash.
local function save()
  local written, dropped = {}, {}
  for field, value in pairs(changes) do
    if value then
      written[#written + 1] = field
      written[#written + 1] = value
    else
      dropped[#dropped + 1] = field
    end
  end
  -- A call takes some thousand arguments at most.
  for i = 1, #written, 1000 do
    call('HSET', S, unpack(written, i, math.min(i + 999, #written)))
  end
  for i = 1, #dropped, 1000 do
    call('HDEL', S, unpack(dropped, i, math.min(i + 999, #dropped)))
  end
  changes = {}
end

-- While a session is busy nothing of it may expire; idle, all of it does at the same moment.
local function settle()
  local busy, was = row.token or open > 0, row.pinned
  set('pinned', busy and 1)
  save()
  if not busy then
    local at = micros(math.ceil((row.expires - ARGV[2]) / 1000))
    for _, key in ipairs({S, M, L}) do call('PEXPIREAT', key, at) end
  elseif not was then
    for _, key in ipairs({S, M, L}) do call('PERSIST', key) end
  end
end

-- The session lives on from now.
local function slide()
  local expires = now + row.ttl
  if math.abs(expires - row.expires) >= math.min(1000000, row.ttl / 100) then
    set('expires', expires)
    call('ZADD', EXPIRY, expires, session)
  end
end

-- Events

local moment
local function iso()
  if moment then return moment end
  local floor = math.floor
  local ms = floor(now / 1000)
  local seconds = floor(ms / 1000)
  local days = floor(seconds / 86400)
  local rest = seconds - days * 86400
  -- The proleptic Gregorian calendar, counted in eras of 400 years that begin in March.
  local shifted = days + 719468
  local era = floor(shifted / 146097)
  local day = shifted - era * 146097
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  day = day - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * day + 2) / 153)
  local date = day - floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  moment = string.format(
    '%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, date,
    floor(rest / 3600), floor(rest % 3600 / 60), rest % 60, ms % 1000)
  return moment
end

-- The JSON that every event has behind its type.
local function head(turn)
  return (turn and '"turn":' .. turn .. ',' or '') .. '"at":"' .. iso() .. '"'
end

local function placed(body, turn, seq)
  return '{"seq":' .. (seq or 'null') .. ',"turn":' .. turn .. ',' .. string.sub(body, 2)
end

-- Append events {type, turn, tail, type, turn, tail ...}; the caller saves the row.
local function append(events)
  if #events == 0 then return end
  if row.floor == row.last_event then call('ZADD', TRIM, now_text, session) end
  local text = row.last_event + 1 .. '\n' .. table.concat(events, '\n')
  set('last_event', row.last_event + #events / 3)
  call('XADD', L, row.last_event .. '-0', 'e', text, 'a', now_text)
  notices[#notices + 1] = {'events', session, text}
  redis.pcall(verb, base .. 'c:' .. session, origin .. '\n' .. text)
end

local function signal(kind, turn)
  notices[#notices + 1] = {'signal', kind, session, turn}
  redis.pcall(verb, base .. 'signals', table.concat({origin, kind, turn, session}, '\n'))
end

-- Turns. A header is "status attempt seq replies queued started finished first_event started_event
-- op by", with - for what is not there.

local HEADER = {
  'status', 'attempt', 'seq', 'replies', 'queued', 'started', 'finished', 'first',
  'started_event', 'op', 'by'
}

local function turn(n)
  local header = call('HGET', S, 't' .. n)
  if not header then return nil end
  local found, i = {n = n}, 0
  for word in string.gmatch(header, '%S+') do
    i = i + 1
    found[HEADER[i]] = tonumber(word) or (word ~= '-' and word)
  end
  -- An operation's id may read as a number.
  local op, by = string.match(header, '(%S+) (%S+)$')
  found.op, found.by = op, by
  return found
end

local function header(found)
  local words = {}
  for i, field in ipairs(HEADER) do
    local value = found[field]
    if type(value) == 'number' then value = micros(value) end
    words[i] = value or '-'
  end
  return table.concat(words, ' ')
end

local function keep(found)
  changes['t' .. found.n] = header(found)
end

local function question(n)
  return call('HGET', S, 'q' .. n)
end

local function position(n)
  for i, other in ipairs(call('LRANGE', Q, 0, -1)) do
    if tonumber(other) == n then return i - 1 end
  end
  return -1
end

-- A turn as others see it: n, header, place in the mailbox, question, error, usage, messages.
local function record(n, place)
  local found = call('HMGET', S, 't' .. n, 'q' .. n, 'e' .. n, 'u' .. n)
  if not found[1] then return false end
  local status, _, seq, replies = string.match(found[1], '^(%S+) (%S+) (%S+) (%S+)')
  place = status == 'queued' and (place or position(tonumber(n))) or -1
  local messages = {}
  if seq ~= '-' then
    local first = seq - row.base_seq - 1
    messages = call('LRANGE', M, first, first + replies)
  end
  return {n, found[1], place, found[2] or '', found[3] or '', found[4] or '', messages}
end

-- The claim

-- Whether the session is claimed by this operation, which may have claimed several.
local function is_of(operation)
  return row.token
    and (row.token == operation or string.sub(row.token, 1, #operation + 1) == operation .. '.')
end

-- Whether `worker` may take the session's next turn at once.
local function free(worker)
  return not row.token and (not row.keeper or row.keeper == worker) and (row.reserved or 0) <= now
end

-- Give the session to the holder of `token`.
local function lease(token, n, duration)
  set('running', n)
  set('token', token)
  set('lease', micros(now + duration))
  set('written', 0)
  call('ZADD', LEASES, row.lease, session)
end

-- What a claim tells its worker: `history` last messages but those up to `known`.
local function claimed(found, text, history, known)
  local whole = math.max(row.base_seq, row.last_seq - history)
  local first = math.max(whole, known)
  local messages = {}
  if first < row.last_seq then
    messages = call('LRANGE', M, first - row.base_seq, -1)
  end
  return {
    session, row.token, found.n, found.attempt, row.name or '', row.metadata, text,
    row.state or '{}', row.last_seq, first, first == whole and 1 or 0, row.created, row.base_seq,
    found.queued or 0, now_text, found.first or 0, messages
  }
end

local function let_go()
  for _, field in ipairs({'running', 'stop', 'token', 'lease', 'written'}) do
    set(field, false)
  end
  call('ZREM', LEASES, session)
end

-- The session waits for a worker from now on, if a turn waits in it.
local function line_up()
  if not row.token and open > 0 then
    call('ZADD', READY, now_text, session)
    if row.keeper or call('ZCARD', READY) <= 16 then  -- beyond that all workers are at it
      notices[#notices + 1] = {'ready'}
      redis.pcall(verb, base .. 'signals', table.concat({origin, 'ready', 0, ''}, '\n'))
    end
  end
end

-- End turn `found` (the head of the mailbox): question and replies enter the history, the last
-- event closes it. `outcome` has status, by, and perhaps replies, drafts, error, usage.
local function close(found, text, outcome)
  local replies = outcome.replies or {}
  local first = row.last_seq + 1
  local why = outcome.error and ',"error":' .. outcome.error or ''
  local question = string.sub(text, 1, -2) .. ',"status":"' .. outcome.status .. '"' .. why .. '}'
  local bodies = {found.n .. ' ' .. question}
  local events = outcome.drafts or {}
  for i, body in ipairs(replies) do
    bodies[i + 1] = found.n .. ' ' .. body
    events[#events + 1] = 'message'
    events[#events + 1] = found.n
    events[#events + 1] =
      head(found.n) .. ',"message":' .. placed(body, found.n, first + i) .. '}'
  end
  events[#events + 1] = 'turn.' .. outcome.status
  events[#events + 1] = found.n
  events[#events + 1] = head(found.n) .. why .. '}'
  for i = 1, #bodies, 1000 do
    call('RPUSH', M, unpack(bodies, i, math.min(i + 999, #bodies)))
  end
  set('last_seq', row.last_seq + #bodies)
  append(events)
  found.status, found.seq, found.replies = outcome.status, first, #replies
  found.finished, found.by = now_text, outcome.by
  keep(found)
  changes['e' .. found.n], changes['u' .. found.n] = outcome.error, outcome.usage
  changes['q' .. found.n] = false
  call('LPOP', Q)
  open = open - 1
  slide()
end

-- Start the session's next turn for `desk` {worker, token, lease, attempts, exhausted}; one whose
-- attempts are used up fails, and the next is. Returns the turn and its question, or nil.
local function start(desk)
  while true do
    local n = call('LINDEX', Q, 0)
    if not n then return nil end
    local found, text = turn(tonumber(n)), question(n)
    if found.attempt < desk.attempts then
      found.attempt = found.attempt + 1
      append({'turn.started', found.n, head(found.n) .. ',"attempt":' .. found.attempt .. '}'})
      found.status, found.started, found.started_event = 'running', now_text, row.last_event
      keep(found)
      lease(desk.token, found.n, desk.lease)
      return found, text
    end
    close(found, text, {status = 'failed', error = desk.exhausted})
  end
end

-- The lease ran out: the attempt counts, and the turn goes back (or ends, if someone stopped it).
local function lapse()
  local n, stop = row.running, row.stop
  let_go()
  if n and n > 0 then
    local found = turn(n)
    if stop then
      close(found, question(n), {status = 'cancelled'})
    else
      found.status = 'queued'
      keep(found)
    end
  end
  line_up()
  settle()
end

-- The holder gives the session back: its attempt does not count, and it keeps nothing of it.
local function give_back()
  local n, stop = row.running, row.stop
  let_go()
  if n > 0 then
    local found = turn(n)
    if stop then
      close(found, question(n), {status = 'cancelled'})
    else
      found.status, found.attempt = 'queued', found.attempt - 1
      keep(found)
    end
    set('keeper', false)
  end
  line_up()
  settle()
end

-- A new session

local function generation()
  return math.floor(now / 1000)
end

local function make(name, metadata, ttl)
  row = {
    name = name, metadata = metadata, created = now, ttl = ttl, expires = now + ttl,
    generation = generation(), last_event = 0, floor = 0, last_turn = 0, base_turn = 0,
    last_seq = 0, base_seq = 0
  }
  for field, value in pairs(row) do changes[field] = value end
  call('ZADD', IDS, 0, session)
  call('ZADD', EXPIRY, row.expires, session)
end

-- Leave nothing of the session.
local function purge()
  call('UNLINK', S, Q, M, L)
  for _, index in ipairs({IDS, EXPIRY, READY, LEASES, TRIM}) do call('ZREM', index, session) end
  signal('gone', 0)
end

-- Make the session unless it is there. Where an earlier one of its name expired and is not swept,
-- numbers go on: no number means two things.
local function found_or_made(name, metadata, ttl)
  if find() then return row end
  local last = row
  if last then purge() end
  make(name, metadata, ttl)
  if last then
    for _, of in ipairs({'event', 'turn', 'seq'}) do set('last_' .. of, last['last_' .. of]) end
    set('floor', last.last_event)
    set('base_turn', last.last_turn)
    set('base_seq', last.last_seq)
  end
  return row
end

-- A session as its owner sees it.
local function told()
  return {
    session, row.name or '', row.metadata, row.created, row.ttl, row.expires, row.generation,
    row.last_turn - row.base_turn, row.last_seq - row.base_seq, row.last_event, open,
    row.running or 0, row.name and 1 or 0
  }
end
