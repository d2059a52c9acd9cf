-- Gives tokens of a lease back to the buckets that they came from. As if they had never been taken:
-- what refilled a bucket meanwhile is added to what it would have held, and no bucket holds more than its
-- capacity. A bucket whose policy was changed since gets nothing: an edit gives nobody a second burst.
--
-- KEYS     one hash a bucket; none is a full bucket, to which nothing can be given
-- ARGV[1]  tokens
-- ARGV[2+] for each bucket, as they were taken: tick, units of a token, units gained a tick, capacity
local tokens = tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
    local at = 1 + (i - 1) * 4
    local stored = redis.call('HMGET', key, 'level', 'tick', 'token', 'refill', 'capacity')
    local is_same = stored[1]
    for n = 1, 4 do
        is_same = is_same and tonumber(stored[n + 1]) == tonumber(ARGV[at + n])
    end
    if is_same then
        local level = tonumber(stored[1]) + tokens * tonumber(stored[3])
        level = math.min(level, tonumber(stored[5]))
        redis.call('HSET', key, 'level', string.format('%.0f', level))
    end
end
return 1
