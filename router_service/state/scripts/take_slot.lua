-- KEYS: taken, queue, waiting, turn. ARGV: ticket, limit, slot ms, waiter ms. Gives -1 for a slot, else the place.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ticket, limit, slot_ms, waiter_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
  redis.call('ZREM', KEYS[2], gone)
  redis.call('ZREM', KEYS[3], gone)
end
local place = 0
if not redis.call('ZSCORE', KEYS[1], ticket) then
  if not redis.call('ZSCORE', KEYS[2], ticket) then
    redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[4]), ticket)
  end
  place = redis.call('ZRANK', KEYS[2], ticket)
  if place >= limit - redis.call('ZCARD', KEYS[1]) then
    redis.call('ZADD', KEYS[3], now + waiter_ms, ticket)
    redis.call('PEXPIRE', KEYS[2], waiter_ms * 2)
    redis.call('PEXPIRE', KEYS[3], waiter_ms * 2)
    redis.call('PEXPIRE', KEYS[4], waiter_ms * 4)
    return place
  end
  redis.call('ZREM', KEYS[2], ticket)
  redis.call('ZREM', KEYS[3], ticket)
  redis.call('PEXPIRE', KEYS[4], waiter_ms * 4)
end
redis.call('ZADD', KEYS[1], now + slot_ms, ticket)
redis.call('PEXPIRE', KEYS[1], slot_ms * 2)
return -1
