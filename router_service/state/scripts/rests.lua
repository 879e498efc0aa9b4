-- KEYS: the hash of rests. Gives what rests, its cause, ms left and ms left of the probe, one after the other.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counted, found = redis.call('HGETALL', KEYS[1]), {}
for place = 1, #counted, 2 do
  local cause, ends, probe, forget = string.match(counted[place + 1], '^([^|]*)|(%d+)|(%d+)|(%d+)|%d+$')
  if tonumber(forget) <= now then
    redis.call('HDEL', KEYS[1], counted[place])
  else
    found[#found + 1] = counted[place]
    found[#found + 1] = cause
    found[#found + 1] = tonumber(ends) - now
    found[#found + 1] = tonumber(probe) - now
  end
end
return found
