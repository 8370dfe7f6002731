"""Many sessions, and many clients that ask for their tokens through nginx: asyncio, because thousands of requests a
second are made beside everything else on the same machine."""

import asyncio
import json
import re
import time
import urllib.parse
from dataclasses import dataclass

import fastcgi
from messages import session_name

LOGINS_AT_ONCE = 32
GIVE_UP_S = 60


@dataclass(eq=False)
class Session:
    user: str
    cookie: str

    @property
    def name(self):
        """As Redis's keys name it."""
        return session_name(self.cookie.partition("=")[2])


@dataclass(eq=False)
class Answer:
    session: Session
    route: str
    begun: float
    seconds: float
    status: int  # 0: no answer
    retry_after: str | None = None
    sets_cookie: bool = False
    error: str | None = None
    token: str | None = None

    @property
    def good(self):
        return self.status == 200

    @property
    def asks_for_a_login(self):
        return self.status == 401 and self.error == "login_required"

    @property
    def retryable(self):
        """The answer that says nothing about the session (API.md 4.5)."""
        return (self.status == 503 and self.error == "temporarily_unavailable" and not self.sets_cookie and
                self.retry_after is not None and int(self.retry_after) >= 1)


# Logins, straight to a service process


def variables(path, cookie="", query=""):
    return fastcgi.variables(PATH_INFO=path, SCRIPT_NAME="/auth", QUERY_STRING=query, HTTP_COOKIE=cookie)


async def ask_service(path, pairs):
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(fastcgi.request(pairs, flags=0))
    data = await asyncio.wait_for(reader.read(), GIVE_UP_S)
    writer.close()
    return data


async def agree(spotify_url, authorize_url, user):
    """What a person does on Spotify's page: the query of the redirect back."""
    host, port = spotify_url.removeprefix("http://").split(":")
    body = urllib.parse.urlencode({"decision": "agree", "name": user})
    reader, writer = await asyncio.open_connection(host, port)
    target = "/" + authorize_url.split("/", 3)[3]
    writer.write(f"POST {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
                 f"Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}".encode())
    page = await asyncio.wait_for(reader.read(), GIVE_UP_S)
    writer.close()
    return re.search(rb"Location: [^?\s]+\?(\S+)", page)[1].decode()


async def log_in(path, spotify_url, user):
    begun = await ask_service(path, variables("/authorize"))
    binding = re.search(rb"Set-Cookie: (\S+?);", begun)[1].decode()
    location = re.search(rb"Location: (\S+)", begun)[1].decode()
    query = await agree(spotify_url, location, user)
    data = await ask_service(path, variables("/callback", binding, query))
    cookie = re.search(rb"Set-Cookie: (\S*spotify-session=\S+?);", data)
    assert cookie, f"no session: {data[:300]}"
    return Session(user, cookie[1].decode())


async def log_in_many(paths, spotify_url, count, first=0):
    slots = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def one(number):
        async with slots:
            return await log_in(paths[number % len(paths)], spotify_url, f"user-{number}")
    return await asyncio.gather(*(one(number) for number in range(first, first + count)))


# Requests, through nginx


class Client:
    """One connection of a browser, opened anew when it ends."""

    def __init__(self, url):
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)
        self.reader = self.writer = None

    async def ask(self, session, route="/token", method="GET"):
        begun = time.monotonic()
        answer = Answer(session, route, begun, 0, 0)
        try:
            await asyncio.wait_for(self._exchange(answer, method), GIVE_UP_S)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as error:
            answer.status, answer.error = 0, repr(error)
            self.close()
        answer.seconds = time.monotonic() - begun
        return answer

    async def _exchange(self, answer, method):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        self.writer.write(f"{method} /auth{answer.route} HTTP/1.1\r\nHost: {self.host}\r\nX-Requested-With: load\r\n"
                          f"Sec-Fetch-Site: same-origin\r\nCookie: {answer.session.cookie}\r\n"
                          "Content-Length: 0\r\n\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {name.lower(): value.strip() for name, _, value in
                   (line.partition(":") for line in head.split("\r\n")[1:])}
        body = await self._body(headers)
        answer.status = int(head[9:12])
        answer.retry_after = headers.get("retry-after")
        answer.sets_cookie = "set-cookie" in headers
        fields = json.loads(body) if body else {}
        answer.error, answer.token = fields.get("error"), fields.get("access_token")
        if headers.get("connection") == "close":
            self.close()

    async def _body(self, headers):
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        while headers.get("transfer-encoding") == "chunked":
            size = int(await self.reader.readline(), 16)
            body += (await self.reader.readexactly(size + 2))[:-2]
            if size == 0:
                break
        return body

    def close(self):
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None


class Load:
    """Clients that ask for one session after the other until stop(); pause_s: what each waits between two requests."""

    ROUTES = (("/token", "GET"),) * 8 + (("/refresh", "POST"), ("/session", "GET"))

    def __init__(self, url, sessions, clients, random, pause_s=0, routes=ROUTES):
        self.url, self.sessions, self.random = url, sessions, random
        self.pause_s, self.routes = pause_s, routes
        self.answers = []
        self._ended = False
        self._tasks = [asyncio.ensure_future(self._run(Client(url))) for _ in range(clients)]

    async def _run(self, client):
        while not self._ended:
            route, method = self.random.choice(self.routes)
            self.answers.append(await client.ask(self.random.choice(self.sessions), route, method))
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
        client.close()

    async def stop(self):
        """No new requests; those under way are waited for."""
        self._ended = True
        await asyncio.gather(*self._tasks)


async def ask_together(url, session, count):
    """So many requests for one session at once, each on a connection of its own."""
    clients = [Client(url) for _ in range(count)]
    for client in clients:
        client.reader, client.writer = await asyncio.open_connection(client.host, client.port)
    answers = await asyncio.gather(*(client.ask(session) for client in clients))
    for client in clients:
        client.close()
    return answers


async def ask_each_until_known(url, sessions, clients, deadline_s):
    """Every session's last word: 200, or what is no 503; asked again while it is "try again"."""
    queue, found = list(sessions), {}
    deadline = time.monotonic() + deadline_s

    async def run(client):
        while queue:
            session = queue.pop()
            answer = await client.ask(session)
            if answer.retryable and time.monotonic() < deadline:
                queue.insert(0, session)
                await asyncio.sleep(0.05)
            else:
                found[session] = answer
        client.close()
    await asyncio.gather(*(run(Client(url)) for _ in range(clients)))
    return found
