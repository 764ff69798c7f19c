-- forget: `worker` keeps these sessions no longer; any worker may take their next turn at once.
local worker = take()
while arg < #ARGV do
  if enter(take()) and row.keeper == worker then
    set('keeper', false)
    save()
  end
end
return done()
