-- waiting: since when the longest waiting sessions wait for a worker, `limit` at most; of one whose
-- lease has lapsed, since then. Says where to claim first, and claims nothing.
local limit = number()
local since = {}
for _, leases in ipairs({READY, LEASES}) do
  local found = call('ZRANGEBYSCORE', leases, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 2, #found, 2 do since[#since + 1] = found[i] end
end
return done(since)
