-- disown: claims whose token begins so, made for one who never heard of it, go back.
local prefix = take()
local found = 0
for _, id in ipairs(call('ZRANGE', LEASES, 0, -1)) do
  if enter(id) and row.token and string.sub(row.token, 1, #prefix) == prefix then
    give_back()
    found = found + 1
  end
end
return done(found)
