-- turns: up to `limit` turns between two numbers, from the last down or from the first up, all or
-- of one status; withdrawn ones of an earlier life have nothing to show. Answers them, and the
-- number to go on from, because a call looks at 1,000 at most (0: there are no more).
local first, last, down, status, limit = number(), optional(), take() == '1', optional(), number()
if not find() then return refused('no_session') end
last = math.min(last and tonumber(last) or row.last_turn, row.last_turn)
first = math.max(first, 1)
local found, looked = {}, 0
local n, step = first, 1
if down then n, step = last, -1 end
while n >= first and n <= last and #found < limit and looked < 1000 do
  local text = call('HGET', S, 't' .. n)
  looked = looked + 1
  if text then
    local is, _, seq = string.match(text, '^(%S+) (%S+) (%S+)')
    local shown = seq ~= '-' or call('HEXISTS', S, 'q' .. n) == 1
    if shown and (not status or is == status) then found[#found + 1] = record(n) end
  end
  n = n + step
end
return done({found, (n >= first and n <= last) and n or 0})
