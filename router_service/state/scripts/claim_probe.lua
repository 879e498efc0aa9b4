-- KEYS: the hash of rests. ARGV: what has rested, ms of the probe. Gives 1 to the one who tries it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not known then
  return 1
end
local cause, ends, probe, forget, count = string.match(known, '^([^|]*)|(%d+)|(%d+)|(%d+)|(%d+)$')
if now < tonumber(ends) or now < tonumber(probe) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s|%s|%.0f|%s|%s', cause, ends, now + tonumber(ARGV[2]), forget, count))
return 1
