-- wrk script: one request after the other, each with the cookie of another session. Arguments: the file with the cookies,
-- the mean pause of a connection in ms (0: none), the request's method and path, "each" to take one session after the
-- other, or how many of them (from the front) to choose from at random.
local cookies = {}
local head, pause, choice
local last = 0

function init(args)
    for line in io.lines(args[1]) do
        cookies[#cookies + 1] = line
    end
    pause = tonumber(args[2])
    head = args[3] .. " " .. args[4] .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\nX-Requested-With: bench\r\n"
        .. "Sec-Fetch-Site: same-origin\r\n" .. (args[3] == "POST" and "Content-Length: 0\r\n" or "") .. "Cookie: "
    choice = tonumber(args[5])
    math.randomseed(os.time())
    if pause > 0 then
        function delay()
            return math.random(0, 2 * pause)
        end
    end
end

function request()
    last = choice and math.random(choice) or last % #cookies + 1
    return head .. cookies[last] .. "\r\n\r\n"
end
