-- KEYS: taken. ARGV: slot ms, tickets. Gives how many of them were lost; they have their slots again.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot_ms = tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local lost = 0
for index = 2, #ARGV do
  lost = lost + redis.call('ZADD', KEYS[1], now + slot_ms, ARGV[index])
end
redis.call('PEXPIRE', KEYS[1], slot_ms * 2)
return lost
