-- KEYS: one hash of steps per rate. ARGV: step seconds, steps, then limit and cost of each.
-- Gives {0, step}, or {number of the rate that waits longest, milliseconds to wait}; then nothing was taken.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local step_ms, steps = tonumber(ARGV[1]) * 1000, tonumber(ARGV[2])
local step = math.floor(now / step_ms)
local worst, longest = 0, 0
for index, key in ipairs(KEYS) do
  local limit, cost = tonumber(ARGV[1 + 2 * index]), tonumber(ARGV[2 + 2 * index])
  local counted, order, used = redis.call('HGETALL', key), {}, {}
  local excess = cost - limit
  for place = 1, #counted, 2 do
    local at = tonumber(counted[place])
    if at < step - steps then
      redis.call('HDEL', key, counted[place])
    else
      used[at] = tonumber(counted[place + 1])
      order[#order + 1] = at
      excess = excess + used[at]
    end
  end
  if excess > 0 then
    table.sort(order)
    local wait = 60000
    for _, at in ipairs(order) do
      excess = excess - used[at]
      if excess <= 0 then
        wait = math.max(1, (at + steps + 1) * step_ms - now)
        break
      end
    end
    if wait > longest then
      worst, longest = index, wait
    end
  end
end
if worst > 0 then
  return {worst, longest}
end
for index, key in ipairs(KEYS) do
  redis.call('HINCRBY', key, step, ARGV[2 + 2 * index])
  redis.call('PEXPIRE', key, (steps + 2) * step_ms)
end
return {0, step}
