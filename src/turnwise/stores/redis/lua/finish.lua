-- finish: question, replies, state and last event land together, and perhaps the session's next
-- turn is claimed. The same operation is done once.
local op, token, n, known_written = take(), take(), number(), number()
local status, state, error, usage = take(), optional(), optional(), optional()
local keeper, next_token, worker = optional(), optional(), take()
local desk = {token = next_token, lease = number(), attempts = number(), exhausted = take()}
local history, known = number(), number()
local replies, drafts = {}, {}

local function next_claim(found, text)
  return claimed(found, text, history, known)
end

if not enter(session) then return refused('claim_lost') end
if row.token ~= token then
  local found = turn(n)
  if not found or found.by ~= op then return refused('claim_lost') end
  -- It was done already, and its answer was lost on the way.
  local following = next_token and row.token == next_token
    and next_claim(turn(row.running), question(row.running))
  return done({found.finished, found.seq, following, 1})
end

if row.written < known_written then return refused('claim_lost') end -- Redis has lost some of it

for i = 1, number() do replies[i] = take() end
arg = arg + 3 * (row.written - known_written)
while arg < #ARGV do drafts[#drafts + 1] = take() end

-- Who knows all that was said before this turn also knows what it says itself.
if known >= row.last_seq then known = known + 1 + #replies end
local found = turn(n)
close(found, question(n), {
  status = status, by = op, replies = replies, drafts = drafts, error = error, usage = usage
})
let_go()
if state then set('state', state) end
set('keeper', keeper)
local following
if next_token and free(worker) then
  local next_found, text = start(desk)
  following = next_found and next_claim(next_found, text)
end
if not following then line_up() end
settle()
return done({now_text, found.seq, following or false, 0})
