"""Lua scripts that change jobs in Redis atomically.

KEYS[1] is the prefix of all keys, ARGV[1] a JSON object with the arguments. Numbers are passed as text,
because Lua rounds them. The keys below all have the prefix:

    job:ID          hash: the fields of a job, and `claim`, a token of the runner that holds it
    state:STATE     sorted set of the jobs in a state: by creation if unfinished, by end if finished
    video:ID        list: the video in pieces, until the job has finished
    result:ID       list: the result in pieces
    key:CALLER:KEY  the job of an idempotency key
    webhooks        sorted set of jobs by the time when their webhook is due
    bytes           total size of videos and results
"""

# Arguments: id, idempotency (key or absent), created_s, video_bytes, fields. Returns the id of the new job or
# of the earlier one, or nothing if the video has expired.
ADD = """
local p, a = KEYS[1], cjson.decode(ARGV[1])
if a.idempotency then
    local earlier = redis.call('GET', p .. a.idempotency)
    if earlier then
        redis.call('UNLINK', p .. 'video:' .. a.id)
        return earlier
    end
end
if redis.call('PERSIST', p .. 'video:' .. a.id) == 0 then return nil end
for name, value in pairs(a.fields) do redis.call('HSET', p .. 'job:' .. a.id, name, value) end
redis.call('ZADD', p .. 'state:queued', a.created_s, a.id)
redis.call('INCRBY', p .. 'bytes', a.video_bytes)
if a.idempotency then redis.call('SET', p .. a.idempotency, a.id) end
return a.id
"""

# Arguments: id, allowed (states), claim (token or absent), fields, started (count an attempt), state and
# score (if the state changes), webhook_due_s (absent: no change, '': never), ended, result_bytes (if there is
# a result). Returns 1, or 0 if the job is not in an allowed state, another runner holds it, or its result is
# lost. The script frees memory or needs little, so it also works in a full Redis.
CHANGE = """#!lua flags=allow-oom
local p, a = KEYS[1], cjson.decode(ARGV[1])
local job = p .. 'job:' .. a.id
local state = redis.call('HGET', job, 'state')
local allowed = false
for _, name in ipairs(a.allowed) do allowed = allowed or name == state end
if not allowed then return 0 end
if a.claim and redis.call('HGET', job, 'claim') ~= a.claim then return 0 end
if a.result_bytes then
    local written = p .. 'result:' .. a.id .. ':' .. a.claim
    if redis.call('EXISTS', written) == 0 then return 0 end
    redis.call('RENAME', written, p .. 'result:' .. a.id)
    redis.call('PERSIST', p .. 'result:' .. a.id)
    redis.call('HSET', job, 'result_bytes', a.result_bytes)
    redis.call('INCRBY', p .. 'bytes', a.result_bytes)
end
for name, value in pairs(a.fields) do redis.call('HSET', job, name, value) end
if a.started then redis.call('HINCRBY', job, 'attempts', 1) end
if a.state then
    redis.call('HSET', job, 'state', a.state)
    redis.call('ZADD', p .. 'state:' .. a.state, a.score, a.id)
    if a.state ~= state then redis.call('ZREM', p .. 'state:' .. state, a.id) end
end
if a.ended then
    redis.call('UNLINK', p .. 'video:' .. a.id)
    redis.call('DECRBY', p .. 'bytes', redis.call('HGET', job, 'video_bytes'))
end
if a.webhook_due_s == '' then
    redis.call('HDEL', job, 'webhook_due_s')
    redis.call('ZREM', p .. 'webhooks', a.id)
elseif a.webhook_due_s then
    redis.call('HSET', job, 'webhook_due_s', a.webhook_due_s)
    redis.call('ZADD', p .. 'webhooks', a.webhook_due_s, a.id)
end
return 1
"""

# Arguments: id.
DELETE = """#!lua flags=allow-oom
local p, a = KEYS[1], cjson.decode(ARGV[1])
local job = p .. 'job:' .. a.id
local found = redis.call('HMGET', job, 'state', 'video_bytes', 'result_bytes', 'idempotency')
if not found[1] then return 0 end
local unfinished = found[1] == 'queued' or found[1] == 'running'
redis.call('DECRBY', p .. 'bytes', unfinished and found[2] or found[3] or 0)
if found[4] then redis.call('DEL', p .. found[4]) end
redis.call('ZREM', p .. 'state:' .. found[1], a.id)
redis.call('ZREM', p .. 'webhooks', a.id)
redis.call('UNLINK', job, p .. 'video:' .. a.id, p .. 'result:' .. a.id)
return 1
"""

# now_s, until_s, limit. Returns the ids of jobs whose webhook was due, and makes them due again at until_s.
# It adds no members, so it also works in a full Redis.
DUE_WEBHOOKS = """#!lua flags=allow-oom
local p, a = KEYS[1], cjson.decode(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', p .. 'webhooks', '-inf', a.now_s, 'LIMIT', 0, a.limit)
for _, id in ipairs(due) do redis.call('ZADD', p .. 'webhooks', a.until_s, id) end
return due
"""
