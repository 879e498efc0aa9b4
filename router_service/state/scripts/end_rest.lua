-- KEYS: the hash of rests. ARGV: what rests. Its rest is over now; it stays known, for the first try and the next rest.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not known then
  return 0
end
local cause, ends, probe, forget, count = string.match(known, '^([^|]*)|(%d+)|(%d+)|(%d+)|(%d+)$')
if tonumber(ends) <= now then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s|%.0f|%s|%s|%s', cause, now, probe, forget, count))
return 1
