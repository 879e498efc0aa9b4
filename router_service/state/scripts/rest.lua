-- KEYS: the hash of rests. ARGV: what rests, cause, ms or -1, first ms, longest ms, least ms to linger.
-- A field holds cause, end, end of the probe, when to forget it, and how many rests there were.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local said, first, longest, least = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local before_until, count = 0, 0
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  local ends, forget, times = string.match(known, '^[^|]*|(%d+)|%d+|(%d+)|(%d+)$')
  if tonumber(forget) > now then
    before_until, count = tonumber(ends), tonumber(times)
  end
end
local is_same = before_until > now
local earlier = count
if is_same then earlier = math.max(0, count - 1) else count = count + 1 end
local ms = said
if ms < 0 then ms = math.min(first * 2 ^ math.min(earlier, 20), longest) end
local ends = math.max(now + ms, before_until)
local forget = ends + math.max(least, ms)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s|%.0f|0|%.0f|%.0f', ARGV[2], ends, forget, count))
if redis.call('PTTL', KEYS[1]) < forget - now then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', forget - now))
end
return 1
