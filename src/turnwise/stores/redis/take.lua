-- take: ready sessions, each given to one worker for two seconds. Answers their ids and since when
-- they were ready, in turn.
--
-- KEYS[1]  the base of the partition's keys   ARGV  1 the worker, 2 how many, 3 the time, 4 AFFINITY
local call, base, worker, limit, now = redis.call, KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local found = {}

local function give(id, since)
  call('ZADD', base .. 'ready', now + 2, id)
  found[#found + 1] = id
  found[#found + 1] = since
end

local ready = call('ZRANGEBYSCORE', base .. 'ready', '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
for i = 1, #ready, 2 do give(ready[i], ready[i + 1]) end
-- A worker need not wait for those that it has cached.
if #found < 2 * limit then
  local soon = call('ZRANGEBYSCORE', base .. 'ready', '(' .. now, now + ARGV[4], 'WITHSCORES')
  for i = 1, #soon, 2 do
    if #found < 2 * limit and call('HGET', base .. 'keepers', soon[i]) == worker then
      give(soon[i], soon[i + 1])
    end
  end
end
return found
