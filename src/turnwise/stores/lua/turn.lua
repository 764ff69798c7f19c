-- turn: one turn, or nothing.
local n = take()
if not enter(session) then return done() end
return done(record(n) or '')
