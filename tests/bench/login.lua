-- wrk script: as many people as connections log in again and again. wrk does not say which connection a request goes to, so
-- a connection's next request is, by chance, the beginning of a login or the callback of one that has begun: half of each. Were
-- it always a callback where one waits, all connections would soon do the same at the same time, and wait together.
local waiting = {}
local first, last = 1, 0
local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init()
    logins = 0
    failures = 0
end

function request()
    if first > last or math.random() < 0.5 then
        return wrk.format("GET", "/auth/authorize")
    end
    local login = waiting[first]
    waiting[first] = nil
    first = first + 1
    return wrk.format("GET", "/auth/callback?code=AQbench&state=" .. login.state, {["Cookie"] = login.cookie})
end

function response(status, headers)
    local cookie = headers["Set-Cookie"] or ""
    local location = headers["Location"] or ""
    if status == 302 then
        last = last + 1
        waiting[last] = {state = location:match("[?&]state=([%w_-]+)"), cookie = cookie:match("^[^;]+")}
    elseif status == 303 and cookie:find("spotify%-session=") then
        logins = logins + 1
    else
        failures = failures + 1
    end
end

function done(summary)
    local good, bad = 0, 0
    for _, thread in ipairs(threads) do
        good = good + thread:get("logins")
        bad = bad + thread:get("failures")
    end
    print(string.format("logins %d failures %d microseconds %d", good, bad, summary.duration))
end
