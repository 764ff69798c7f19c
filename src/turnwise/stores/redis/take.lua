-- take: ready sessions, each given to one worker for two seconds. Answers their ids and their places
-- in the line, in turn.
--
-- KEYS[1]  the base of the partition's keys   ARGV  1 the worker, 2 how many, 3 the time, 4 AFFINITY,
--          5 how many turns of an owner may run ('' any number), then the sessions that are wanted, if
--          not those that are next in the line
local call, base, worker, limit, now = redis.call, KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local found, first, given = {}, 0, {}

local function give(id, place)
  call('ZADD', base .. 'ready', now + 2, id)
  found[#found + 1] = id
  found[#found + 1] = place
end

-- A worker need not wait for those that it has cached.
local function may_take(id)
  local at = tonumber(call('ZSCORE', base .. 'ready', id) or now + 9)
  if at > now + 0 then
    return at <= now + ARGV[4] and call('HGET', base .. 'keepers', id) == worker
  end
  if ARGV[5] == '' then return true end
  local owner = call('HGET', base .. 'h:' .. id, 'o')
  if not owner then return true end
  local running = given[owner] or tonumber(call('HGET', base .. 'n:' .. owner, 'running') or 0)
  given[owner] = running + 1
  return running < tonumber(ARGV[5])
end

-- Sessions that an older version has made ready get into the line.
if call('ZCARD', base .. 'ready') > call('ZCARD', base .. 'line') then
  for _, id in ipairs(call('ZRANGEBYSCORE', base .. 'ready', '-inf', now, 'LIMIT', 0, limit)) do
    call('ZADD', base .. 'line', 'NX', 1, id)
  end
end

local function take_later(id)
  call('ZADD', base .. 'later', now + 2, id)
  found[#found + 1] = id
  found[#found + 1] = 0
end

if ARGV[6] then
  for i = 6, #ARGV do
    local due = tonumber(call('ZSCORE', base .. 'later', ARGV[i]) or now + 9)
    if due <= now + 0 then
      take_later(ARGV[i])
    elseif may_take(ARGV[i]) then
      give(ARGV[i], call('ZSCORE', base .. 'line', ARGV[i]) or 0)
    end
  end
  return found
end
for _, id in ipairs(call('ZRANGEBYSCORE', base .. 'later', '-inf', now, 'LIMIT', 0, limit)) do
  take_later(id)
end
repeat
  local line = call('ZRANGE', base .. 'line', first, first + limit - 1, 'WITHSCORES')
  first = first + limit
  for i = 1, #line, 2 do
    if #found < 2 * limit and may_take(line[i]) then give(line[i], line[i + 1]) end
  end
until #line < 2 * limit or #found >= 2 * limit
return found
