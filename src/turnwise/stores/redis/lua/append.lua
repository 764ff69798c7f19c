-- append: events of the running turn enter the log. `known_written` is how many events this claim is known
-- to have written, so what was written by an act whose answer was lost is not written again.
-- Answers whether someone wants the turn stopped.
local token, n, known_written = take(), number(), number()
if not enter(session) or row.token ~= token then return refused('claim_lost') end
local events, skip = {}, row.written - known_written
if skip < 0 then return refused('claim_lost') end -- Redis has lost what this claim wrote
arg = arg + 3 * skip
while arg < #ARGV do events[#events + 1] = take() end
set('written', row.written + #events / 3)
append(events)
save()
return done(row.stop == n and 1 or 0)
