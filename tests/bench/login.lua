-- wrk script: as many people as connections log in again and again, as a browser does: /authorize, /callback, and the /session
-- of whoever has arrived, which ends a login. wrk does not say which connection a request goes to, so a connection's next
-- request is, by chance, any step of a login that has come so far: a third of each. Were it always the last one possible, all
-- connections would soon do the same at the same time, and wait together.
-- With the name of a file as its argument there is no /session: a login ends with its cookie as a line of that file,
-- all of one length.
local threads = {}

local function queue()
    return {first = 1, last = 0}
end

local function push(q, item)
    q.last = q.last + 1
    q[q.last] = item
end

local function pop(q)
    if q.first > q.last then
        return nil
    end
    local item = q[q.first]
    q[q.first] = nil
    q.first = q.first + 1
    return item
end

local agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
local agreed, arrived = queue(), queue()
local cookies

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    logins = 0
    failures = 0
    cookies = args[1] and assert(io.open(args[1], "w"))
end

function request()
    local step = math.random(cookies and 2 or 3)
    local cookie = step == 3 and pop(arrived)
    if cookie then
        return wrk.format("GET", "/auth/session", {["Cookie"] = cookie, ["X-Requested-With"] = "bench"})
    end
    local login = step == 2 and pop(agreed)
    if login then
        local headers = {["Cookie"] = login.cookie, ["User-Agent"] = agent}
        return wrk.format("GET", "/auth/callback?code=AQbench&state=" .. login.state, headers)
    end
    return wrk.format("GET", "/auth/authorize")
end

function response(status, headers)
    local cookie = headers["Set-Cookie"] or ""
    local location = headers["Location"] or ""
    if status == 302 then
        push(agreed, {state = location:match("[?&]state=([%w_-]+)"), cookie = cookie:match("^[^;]+")})
    elseif status == 303 and cookie:find("spotify%-session=") then
        if cookies then
            cookies:write(cookie:match("^[^;]+"), "\n")
            logins = logins + 1
        else
            push(arrived, cookie:match("^[^;]+"))
        end
    elseif status == 200 then
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
