-- prove: do once what acts do, which is what readiness promises. A replica, a full memory, too few
-- replicas and missing rights refuse it as they would refuse a message.
--
-- KEYS[1]  the base of the partition's keys   ARGV  1 PUBLISH or SPUBLISH, 2 a number
local call, base = redis.call, KEYS[1]
call('SET', base .. 'proof', ARGV[2], 'PX', 60000)
call('HSET', base .. 'proof:h', 'p', ARGV[2])
call('HDEL', base .. 'proof:h', 'p')
call('XADD', base .. 'proof:e', '1-1', 'b', ARGV[2])
call('UNLINK', base .. 'proof:e')
call('ZADD', base .. 'proof:z', 1, ARGV[2])
call('ZREM', base .. 'proof:z', ARGV[2])
call(ARGV[1], base .. 'signals', ARGV[2] .. '\0proof\n0\n')
return 1
