-- disown: claims of this operation, made for one who never heard of it, go back.
local operation = take()
local found = 0
for _, id in ipairs(call('ZRANGE', LEASES, 0, -1)) do
  if enter(id) and is_of(operation) then
    give_back()
    found = found + 1
  end
end
return done(found)
