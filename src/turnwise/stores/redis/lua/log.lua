-- log: what the log holds behind number `after`, `limit` entries at most, and its first and last
-- number, from one moment; of one turn, from its first event on. A session that has expired has
-- none.
local after, limit, of = number(), number(), optional()
if not find() then return done() end
local found = of and turn(tonumber(of))
if found then after = math.max(after, found.first - 1) end
local texts, last = {}, after
for i, entry in ipairs(call('XRANGE', L, (after + 1) .. '-0', '+', 'COUNT', limit)) do
  texts[i], last = entry[2][2], tonumber(string.match(entry[1], '^%d+'))
end
return done({row.floor, row.last_event, texts, last})
