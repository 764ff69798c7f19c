-- reset: messages, state, mailbox and log are forgotten, open turns cancelled, numbers go on. What
-- an idempotency key stands for stays, and that a turn was open and is cancelled; what was said
-- does not. The same operation is done once.
local op = take()
if not find() then return refused('no_session') end
if row.reset_op == op then return done(told()) end
local kept, events, running = {}, {}, row.running
local fields = call('HKEYS', S)
for _, field in ipairs(fields) do
  if string.sub(field, 1, 2) == 'k:' then
    local n = tonumber(string.match(call('HGET', S, field), '^%d+'))
    kept[n] = turn(n)
  end
end
for _, text in ipairs(call('LRANGE', Q, 0, -1)) do
  local n = tonumber(text)
  local found = turn(n)
  found.status, found.finished = 'cancelled', now_text
  kept[n] = found
  for _, value in ipairs({'turn.cancelled', n, head(n) .. '}'}) do events[#events + 1] = value end
end
for _, value in ipairs({'session.reset', '', head() .. '}'}) do events[#events + 1] = value end
for _, field in ipairs(fields) do
  if string.find(field, '^[tqeu]%d+$') then changes[field] = false end
end
call('UNLINK', M, L, Q)
open = 0
for _, found in pairs(kept) do
  found.seq, found.replies = false, 0
  keep(found)
end
set('floor', row.last_event)
append(events)
if running then signal('lost', running) end
set('base_turn', row.last_turn)
set('base_seq', row.last_seq)
set('state', false)
set('reset_op', op)
slide()
let_go()
call('ZREM', READY, session)
settle()
return done(told())
