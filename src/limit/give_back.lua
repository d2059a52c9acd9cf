-- Gives tokens of a lease back to the buckets that they came from, under whatever policy these have by
-- now. As if they had never been taken: what refilled a bucket meanwhile is added to what it would
-- have held, and no bucket holds more than its capacity.
--
-- KEYS     one hash a bucket; none is a full bucket, to which nothing can be given
-- ARGV[1]  tokens
local tokens = tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
    local stored = redis.call('HMGET', key, 'level', 'token', 'capacity')
    if stored[1] then
        local capacity = tonumber(stored[3])
        local level = tonumber(stored[1]) + tokens * tonumber(stored[2])
        redis.call('HSET', key, 'level', string.format('%.0f', math.min(level, capacity)))
    end
end
return 1
