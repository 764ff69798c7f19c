-- clean: a slice of housekeeping, done only if the session is still the one that was looked at.
--
-- KEYS[1]  the base of the partition's keys
-- ARGV     1 session, 2 its birth, 3 from which id on its deltas stay, 4 its entries ('' all),
--          5 its new horizon (''), 6 'emptied' after the last slice of what a reset left,
--          7 when its deltas are looked at again, 8 how many fields and values are set; those; then
--          the fields that are deleted
local call, base, A = redis.call, KEYS[1], ARGV
local id = A[1]
local H, E, D = base .. 'h:' .. id, base .. 'e:' .. id, base .. 'd:' .. id
if call('HGET', H, 'b') ~= A[2] then return 0 end

-- Within a node of a stream Redis keeps the bytes of what is trimmed beside what is not: what is left
-- behind a reset is written anew.
local function renew(key)
  local left = call('XRANGE', key, '-', '+', 'COUNT', 1001)
  if #left == 0 or #left > 1000 then return end
  call('UNLINK', key)
  for _, entry in ipairs(left) do call('XADD', key, entry[1], unpack(entry[2])) end
end

if A[5] ~= '' then call('HSET', H, 'z', A[5]) end
local last = 8 + A[8]
if last > 8 then call('HSET', H, unpack(A, 9, last)) end
if #A > last then call('HDEL', H, unpack(A, last + 1)) end
if A[4] ~= '' then call('XTRIM', E, 'MINID', A[4]) end
if A[3] ~= '' then call('XTRIM', D, 'MINID', A[3]) end
if A[6] ~= '' then
  call('HDEL', base .. 'erasing', id)
  renew(E)
  renew(D)
end
local oldest = call('XRANGE', D, '-', '+', 'COUNT', 1)[1]
if oldest then
  local at = string.match(oldest[2][2], '^%S+ %S+ %S+ %S+ ([%d.]+)')
  call('ZADD', base .. 'trim', math.max(tonumber(at), A[7]), id)
else
  call('UNLINK', D)
  call('ZREM', base .. 'trim', id)
end
return 1
