"""Takes requests, notes them in the journal, leads them to the part of Spotify that is meant."""

import asyncio
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from . import accounts, control_api, pages, web_api
from .behaviour import Behaviours
from .delivery import HTML, Answer, Ended, Hanging, finish, interrupt, response, send, status_answer
from .journal import Journal
from .state import State

LINE_MAX = 1 << 17
FORM = "application/x-www-form-urlencoded"
POISON_FIELDS = {"token": "access_token", "api": "display_name", "authorize": "error"}


class Params(dict):
    """Parameters by name; `pairs` keeps the repeated ones. Raises ValueError on bad input."""

    def __init__(self, text):
        self.pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
        super().__init__(self.pairs)


class Call:
    """What a part of Spotify sees of a request."""

    def __init__(self, request, path, query, body, server):
        headers = request.headers
        self.method, self.path, self.query, self.body = request.method, path, query, body
        self.authorization = headers.get("Authorization")
        self.content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.form = None
        if self.content_type == FORM:
            self.form = Params(body.decode("ascii"))
        self.journal, self.label, self.origin = server.journal, server.label, server.origin
        self._request = request

    @property
    def cookies(self):
        return {name: unquote(value) for name, value in self._request.cookies.items()}


class Server:
    def __init__(self, label, keep, log_max, secrets_max):
        self.label = label
        self.origin = ""
        self.state = State(keep)
        self.journal = Journal(log_max, secrets_max)
        self.behaviours = Behaviours()
        self.hanging = Hanging()
        self.web = web.Server(
            self.handle, access_log=None, max_line_size=LINE_MAX, max_field_size=LINE_MAX,
        )

    async def handle(self, request):
        path, _, query_text = request.raw_path.partition("?")
        body = await request.read()
        if path.startswith("/_control/"):
            return control_api.handle(self, request.method, path, query_text, body)
        try:
            call = Call(request, path, Params(query_text), body, self)
        except ValueError:
            entry = self.journal.arrived("other", request, path, {}, {}, None, None)
            self.journal.answered(entry, 400)
            return response(Answer(400, {"error": "invalid_request"}))
        if path == "/api/token":
            call.form = call.form if call.form is not None else Params("")
            client, grant = accounts.claimed_client(call), call.form.get("grant_type")
            return await self.serve("token", accounts.token, request, call, client, grant)
        if path.startswith("/v1/"):
            return await self.serve("api", web_api.answer, request, call, self.api_client(call))
        if path == "/authorize" and request.method in ("GET", "HEAD", "POST"):
            call.form = call.form if call.form is not None else Params("")
            client = call.query.get("client_id")
            return await self.serve("authorize", accounts.authorize, request, call, client)
        return await self.serve_rest(request, call)

    def api_client(self, call):
        token = self.state.access_tokens.get(web_api.bearer(call.authorization or "") or "")
        return token.client_id if token else None

    async def serve(self, endpoint, work, request, call, client, grant=None):
        journal = self.journal
        noted = "decision" if endpoint == "authorize" and call.method == "POST" else endpoint
        entry = journal.arrived(
            noted, request, call.path, call.query, call.form or {}, client, grant
        )
        behaviours = self.behaviours.resolve(endpoint, client, grant)
        if behaviours.plain:
            answer = work(call, self.state, behaviours)
            journal.answered(entry, answer.status)
            return response(answer)
        try:
            answer = await self.spoilt(endpoint, work, request, call, behaviours)
            result = await send(request, answer, behaviours, self.hanging)
            journal.answered(entry, answer.status)
            return result
        except Ended as ended:
            journal.answered(entry, ended.how)
            # The connection is closed; aiohttp wants something to throw away.
            return web.Response()

    async def spoilt(self, endpoint, work, request, call, behaviours):
        if behaviours.latency:
            await asyncio.sleep(behaviours.latency)
        await interrupt("before", request, behaviours, self.hanging)
        answer = None
        if behaviours.status is None or behaviours.process:
            answer = work(call, self.state, behaviours)
        if behaviours.status is not None:
            answer = status_answer(behaviours)
        if behaviours.answer_delay:
            await asyncio.sleep(behaviours.answer_delay)
        await interrupt("after", request, behaviours, self.hanging)
        finish(answer, behaviours, POISON_FIELDS[endpoint])
        return answer

    async def serve_rest(self, request, call):
        """The start page; /elsewhere, where redirects point that nobody should follow; 404."""
        endpoint = "elsewhere" if call.path == "/elsewhere" else "other"
        entry = self.journal.arrived(
            endpoint, request, call.path, call.query, call.form or {}, None, None
        )
        if endpoint == "elsewhere":
            trap = {"access_token": "BQ-from-elsewhere", "token_type": "Bearer", "expires_in": 3600}
            answer = Answer(200, trap)
        elif call.path == "/":
            answer = Answer(200, pages.start(self.label).encode(), HTML)
        else:
            answer = Answer(404, pages.error(self.label, "Page not found").encode(), HTML)
        self.journal.answered(entry, answer.status)
        return response(answer)
