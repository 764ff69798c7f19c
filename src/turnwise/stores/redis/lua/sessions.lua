-- sessions: up to `limit` sessions behind an id, in order of their ids, and the id to go on from.
local after, limit = take(), number()
local found, last = {}, ''
for _, id in ipairs(call('ZRANGEBYLEX', IDS, after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, limit)) do
  session, last = id, id
  if find() then found[#found + 1] = told() end
end
return done({found, last})
