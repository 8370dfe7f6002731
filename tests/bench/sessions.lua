-- wrk script: one request after the other, each with the cookie of another session. Arguments: the file with the
-- cookies, the mean pause of a connection in ms (0: none), the request's method and path, "each" to take one session
-- after the other, or how many of them (from the front) to choose from at random.
-- The cookies stay one string: a table of a million would have Lua's garbage collector hold up requests.
local cookies, length, count, head, choice
local last = 0

function init(args)
    local file = assert(io.open(args[1]))
    cookies = file:read("*a")
    file:close()
    length = cookies:find("\n")
    count = math.floor(#cookies / length)
    head = args[3] .. " " .. args[4] .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n"
        .. (args[3] == "POST" and "Content-Length: 0\r\n" or "")
        .. "X-Requested-With: bench\r\nSec-Fetch-Site: same-origin\r\nCookie: "
    choice = tonumber(args[5])
    math.randomseed(os.time())
    local pause = tonumber(args[2])
    if pause > 0 then
        function delay()
            return math.random(0, 2 * pause)
        end
    end
end

function request()
    last = choice and math.random(choice) or last % count + 1
    return head .. cookies:sub((last - 1) * length + 1, last * length - 1) .. "\r\n\r\n"
end
