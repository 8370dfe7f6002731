"""GET /metrics, read: a Metrics is {series: value}, a series like 'requests_total{route="/token",status="200"}'."""

import re

import fastcgi

PREFIX = "spotify_auth_"
LINE = re.compile(r'^spotify_auth_([a-z_]+(?:\{[a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*\})?) (-?[0-9.]+)$')


class Metrics(dict):
    def __init__(self, text=""):
        super().__init__()
        for line in text.splitlines():
            if not line.startswith("# "):
                series, value = LINE.match(line).groups()
                assert series not in self, line
                self[series] = float(value)

    def __missing__(self, _series):
        return 0.0  # a combination of labels that has not happened is left out

    def __add__(self, other):
        return self._each(other, lambda a, b: a + b)

    def __sub__(self, other):
        return self._each(other, lambda a, b: a - b)

    def _each(self, other, combine):
        result = Metrics()
        result.update({series: combine(self[series], other[series]) for series in [*self, *other]})
        return result

    def only(self, name):
        """The series of one metric that are not 0."""
        return {series: value for series, value in self.items() if value and series.partition("{")[0] == name}


def ask(service, method="GET", route="/metrics"):
    """A request without a cookie to this service process: a fastcgi.Reply."""
    variables = fastcgi.variables(REQUEST_METHOD=method, SCRIPT_NAME=route, HTTP_X_REQUESTED_WITH="test")
    return fastcgi.ask(service.listen.removeprefix("unix:"), variables, timeout_s=30)


def text(service):
    reply = ask(service)
    assert reply.status == 200, reply.body
    return reply.body.decode()


def scrape(stack):
    """The sum over the stack's service processes."""
    return sum((Metrics(text(service)) for service in stack.services), Metrics())


class Moved:
    """with Moved(stack) as moved: ...; what has changed since, in moved.now()."""

    def __init__(self, stack):
        self.stack = stack

    def __enter__(self):
        self.before = scrape(self.stack)
        return self

    def __exit__(self, *_):
        pass

    def now(self):
        return scrape(self.stack) - self.before

    def only(self, name):
        return self.now().only(name)
