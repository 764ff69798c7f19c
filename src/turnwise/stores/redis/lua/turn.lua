-- turn: one turn by its number or, without one, by its idempotency key; or nothing.
local n, key = optional(), optional()
if not enter(session) then return done() end
if not n then n = string.match(call('HGET', S, 'k:' .. key) or '', '^%d+') end
return done(n and record(n) or '')
