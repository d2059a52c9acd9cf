-- The twin of bucket.rs: decides one request against all of its buckets, all or nothing, by the
-- server's clock. Every number is a whole one below 2^53, which is what a Lua number holds exactly;
-- math.fmod is exact where % is not.
--
-- KEYS     one hash a bucket; none is a full bucket
-- ARGV[1]  tokens that the request takes
-- ARGV[2]  '1' to take nothing
-- ARGV[3]  tokens that may be taken beyond that, for a lease
-- ARGV[4]  they are at most one in so many of the tokens that are left in any bucket
-- ARGV[5]  the time in microseconds, for tests; '' for the server's
-- ARGV[6+] for each bucket: tick in microseconds, units of a token, units gained a tick, capacity
--
-- Returns 1 or 0 (whether all buckets have what is asked for), how many tokens were taken beyond it,
-- then for each bucket its units and the tick at which it has them: after the request if it passes,
-- before it otherwise.

local cost = tonumber(ARGV[1])
local is_peek = ARGV[2] == '1'
local extra = tonumber(ARGV[3])
local share = tonumber(ARGV[4])
local now_us = tonumber(ARGV[5])
if not now_us then
    local time = redis.call('TIME')
    now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function div(a, b)
    return (a - math.fmod(a, b)) / b
end

local function div_ceil(a, b)
    local rest = math.fmod(a, b)
    return (a - rest) / b + (rest > 0 and 1 or 0)
end

local function refilled(bucket)
    local now = div(now_us, bucket.tick)
    local elapsed = math.max(now - bucket.at, 0)
    local missing = math.max(bucket.capacity - bucket.level, 0)
    if elapsed >= div_ceil(missing, bucket.refill) then
        bucket.level = bucket.capacity
    else
        bucket.level = bucket.level + elapsed * bucket.refill
    end
    bucket.at = math.max(now, bucket.at)
end

local buckets = {}
local allowed = true
for i, key in ipairs(KEYS) do
    local at = 5 + (i - 1) * 4
    local bucket = {
        tick = tonumber(ARGV[at + 1]),
        token = tonumber(ARGV[at + 2]),
        refill = tonumber(ARGV[at + 3]),
        capacity = tonumber(ARGV[at + 4]),
    }
    local stored = redis.call('HMGET', key, 'level', 'at', 'tick', 'token', 'refill', 'capacity')
    if stored[1] then
        local old = {
            level = tonumber(stored[1]),
            at = tonumber(stored[2]),
            tick = tonumber(stored[3]),
            token = tonumber(stored[4]),
            refill = tonumber(stored[5]),
            capacity = tonumber(stored[6]),
        }
        refilled(old)
        if old.tick == bucket.tick and old.token == bucket.token
            and old.refill == bucket.refill and old.capacity == bucket.capacity then
            bucket.level, bucket.at = old.level, old.at
        else
            -- The policy was changed: its tokens stay, as far as they fit.
            bucket.level = math.min(div(old.level, old.token) * bucket.token, bucket.capacity)
            bucket.at = div(now_us, bucket.tick)
        end
    else
        bucket.level, bucket.at = bucket.capacity, div(now_us, bucket.tick)
    end
    allowed = allowed and cost * bucket.token <= bucket.level
    buckets[i] = bucket
end

if allowed and not is_peek then
    for _, bucket in ipairs(buckets) do
        bucket.level = bucket.level - cost * bucket.token
        extra = math.min(extra, div(div(bucket.level, bucket.token), share))
    end
else
    extra = 0
end

local answer = { allowed and 1 or 0, extra }
for i, key in ipairs(KEYS) do
    local bucket = buckets[i]
    if allowed and not is_peek then
        bucket.level = bucket.level - extra * bucket.token
        if bucket.level >= bucket.capacity then
            redis.call('DEL', key)
        else
            redis.call('HSET', key, 'level', string.format('%.0f', bucket.level),
                'at', string.format('%.0f', bucket.at), 'tick', bucket.tick,
                'token', string.format('%.0f', bucket.token),
                'refill', string.format('%.0f', bucket.refill),
                'capacity', string.format('%.0f', bucket.capacity))
            -- When it is full again, it is as good as none. A second more, for clocks.
            local ticks = div_ceil(bucket.capacity - bucket.level, bucket.refill)
            redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(ticks * bucket.tick / 1000) + 1000))
        end
    end
    answer[#answer + 1] = bucket.level
    answer[#answer + 1] = bucket.at
end
return answer
