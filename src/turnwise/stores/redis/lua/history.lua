-- history: the last `limit` messages, or those before or after a number, what is open, and the
-- event to follow from: before the running turn's start, so that its answer is seen whole.
local before, after, limit = optional(), optional(), number()
if not find() then return refused('no_session') end
local first, last
if after then
  first = math.max(tonumber(after), row.base_seq) + 1
  last = math.min(first + limit - 1, row.last_seq)
else
  last = before and math.min(tonumber(before) - 1, row.last_seq) or row.last_seq
  first = math.max(last - limit + 1, row.base_seq + 1)
end
local messages = {}
if first <= last then
  messages = call('LRANGE', M, first - row.base_seq - 1, last - row.base_seq - 1)
end
local more = after and last < row.last_seq or not after and first > row.base_seq + 1
local waiting, cursor = {}, row.last_event
for i, n in ipairs(call('LRANGE', Q, 0, -1)) do
  waiting[i] = record(tonumber(n), i - 1)
  local found = i == 1 and turn(tonumber(n))
  if found and found.status == 'running' then cursor = found.started_event - 1 end
end
return done({first, messages, more and 1 or 0, waiting, cursor})
