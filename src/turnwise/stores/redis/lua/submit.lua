-- submit: a message enters the mailbox as a turn, and is claimed if the session is idle and a desk
-- is offered. The same key, or the same operation, makes one turn.
local op, token = take(), optional()
local text, key, key_json, fingerprint = take(), optional(), take(), take()
local limit, generation, create, ttl = number(), optional(), take() == '1', number()
local worker, duration, history = take(), number(), number()
local known, known_created, known_base = number(), number(), number()

local known_session = find()
if not known_session and (generation or not create) then return refused('no_session') end
if generation and tonumber(generation) ~= row.generation then return refused('unauthorized') end
if not known_session then found_or_made(false, '{}', ttl) end

-- A claim that this operation made, or may make now.
local function claim(found)
  if known_created ~= row.created or known_base ~= row.base_seq then known = 0 end
  return claimed(found, '', history, known)
end

local function there(n)
  local claim_made = token and row.token == token and claim(turn(tonumber(n)))
  return done({0, record(n), claim_made, op == turn(n).op and 1 or 0})
end

if key then
  local kept = call('HGET', S, 'k:' .. key)
  if kept then
    local n, print = string.match(kept, '^(%d+) (.*)$')
    if print ~= fingerprint then return refused('key_reused') end
    return there(n)
  end
end
if again then
  for n = row.last_turn, math.max(1, row.last_turn - 200), -1 do
    local found = turn(n)
    if found and found.op == op then return there(n) end
  end
end
local ahead = open
if ahead >= limit then return refused('queue_full') end

local n = row.last_turn + 1
set('last_turn', n)
local found = {
  n = n, status = 'queued', attempt = 0, replies = 0, queued = now_text,
  first = row.last_event + 1, op = op
}
local events = {
  'turn.queued', n,
  head(n) .. ',"position":' .. ahead .. key_json .. ',"message":' .. placed(text, n) .. '}'
}
local starts = token and ahead == 0 and free(worker)
if starts then
  found.status, found.attempt, found.started = 'running', 1, now_text
  found.started_event = found.first + 1
  events[4], events[5], events[6] = 'turn.started', n, head(n) .. ',"attempt":1}'
end
call('RPUSH', Q, n)
open = open + 1
keep(found)
changes['q' .. n] = text
if key then changes['k:' .. key] = n .. ' ' .. fingerprint end
slide()
append(events)
if starts then
  lease(token, n, duration)
elseif ahead == 0 then
  line_up()
end
settle()
return done({1, n, found.first, ahead, now_text, starts and claim(found), 1})
