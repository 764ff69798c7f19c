-- update: what is named (field, value) changes, the rest stays; an empty field name means none.
if not find() then return refused('no_session') end
while arg < #ARGV do
  local field, value = take(), take()
  if field == 'ttl' then
    set('ttl', tonumber(value))
    set('expires', now + row.ttl)
    call('ZADD', EXPIRY, row.expires, session)
  elseif field == 'no_name' then
    set('name', false)
  else
    set(field, value)
  end
end
settle()
return done(told())
