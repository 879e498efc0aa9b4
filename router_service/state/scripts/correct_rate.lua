-- KEYS: the hash of a rate. ARGV: step seconds, steps, the step of the demand, what to add.
local time = redis.call('TIME')
local step_ms = tonumber(ARGV[1]) * 1000
local step = math.floor((time[1] * 1000 + math.floor(time[2] / 1000)) / step_ms)
local delta = tonumber(ARGV[4])
if delta > 0 then
  redis.call('HINCRBY', KEYS[1], step, delta)
  redis.call('PEXPIRE', KEYS[1], (tonumber(ARGV[2]) + 2) * step_ms)
  return 1
end
local counted = redis.call('HGET', KEYS[1], ARGV[3])
if counted then
  redis.call('HSET', KEYS[1], ARGV[3], math.max(0, tonumber(counted) + delta))
end
return 1
