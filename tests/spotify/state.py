"""What Spotify knows: clients, users, codes, grants and tokens, by a clock that tests can move."""

import hashlib
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field


class Bounded(OrderedDict):
    """Forgets its oldest entries when it holds more than `maximum`. (A plain dict would do, but
    finds its first entry ever more slowly when entries are deleted from its front.)"""

    def __init__(self, maximum):
        super().__init__()
        self.maximum = maximum

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        if len(self) > self.maximum:
            self.popitem(last=False)

    def limit(self, maximum):
        self.maximum = maximum
        while len(self) > maximum:
            self.popitem(last=False)


@dataclass
class Client:
    id: str
    secret: str | None
    redirect_uris: list


@dataclass
class User:
    name: str
    display_name: str
    email: str
    product: str = "premium"
    country: str = "SE"

    @property
    def account_id(self):
        return hashlib.sha256(self.name.encode()).hexdigest()[:26]


@dataclass(eq=False)
class Grant:
    """A user's yes to a client. Its age counts from the authorization; refreshing does not
    lengthen it. `with_secret` is known once the code is redeemed."""

    client_id: str
    user: User
    scope: str
    authorized_at: float
    alive: bool = True
    with_secret: bool = False


@dataclass
class Code:
    grant: Grant
    redirect_uri: str
    challenge: str | None
    expires_at: float
    used: bool = False


@dataclass
class AccessToken:
    client_id: str
    user: User | None
    scope: str
    expires_at: float


FIRST_USERS = (
    ("ada", "Ada Lovelace", "premium", "GB"),
    ("grace", "Grace Hopper", "free", "US"),
    ("çağla", "Çağla Şen 🎵", "premium", "TR"),
)


@dataclass
class State:
    keep: int
    clients: dict = field(default_factory=dict)
    clock_offset: float = 0

    def __post_init__(self):
        self.users = Bounded(self.keep)
        self.reset_users()
        self.reset_grants()

    def reset_users(self):
        self.users.clear()
        for name, display_name, product, country in FIRST_USERS:
            self.users[name] = User(name, display_name, f"{name}@example.com", product, country)

    def reset_grants(self):
        self.codes = Bounded(self.keep)
        self.access_tokens = Bounded(self.keep)
        self.refresh_tokens = Bounded(10 * self.keep)
        # Rotated ones, to tell "revoked" from "never issued".
        self.dead_refresh_tokens = Bounded(self.keep)
        self.consents = Bounded(self.keep)

    def now(self):
        return time.time() + self.clock_offset

    def user(self, name):
        """The user of that name, made up when it is a new one."""
        if name not in self.users:
            self.users[name] = User(name, name, f"{name}@example.com")
        return self.users[name]

    def new_code(self, client, user, scope, redirect_uri, challenge, behaviours):
        code = random_token("AQ", behaviours.code_length)
        grant = Grant(client.id, user, scope, self.now())
        self.codes[code] = Code(grant, redirect_uri, challenge, self.now() + behaviours.code_ttl)
        self.consents.setdefault((client.id, user.name), set()).update(scope.split())
        return code

    def new_refresh_token(self, grant, length):
        token = random_token("AQ", length)
        self.refresh_tokens[token] = grant
        return token

    def retire_refresh_token(self, token):
        self.dead_refresh_tokens[token] = self.refresh_tokens.pop(token)

    def new_access_token(self, client_id, user, scope, lifetime, length):
        token = random_token("BQ", length)
        self.access_tokens[token] = AccessToken(client_id, user, scope, self.now() + lifetime)
        return token

    def revoke(self, user_name, client_id, access_tokens):
        """What a person does at spotify.com/account/apps. Access tokens live on till they expire,
        as at Spotify, unless `access_tokens`. Returns how many grants died."""

        def meant(client, user):
            name = user.name if user else None
            return user_name in (None, name) and client_id in (None, client)

        grants = {grant for grant in self.refresh_tokens.values() if grant.alive}
        grants |= {code.grant for code in self.codes.values() if code.grant.alive}
        grants = [grant for grant in grants if meant(grant.client_id, grant.user)]
        for grant in grants:
            grant.alive = False
            self.consents.pop((grant.client_id, grant.user.name), None)
        if access_tokens:
            for value, token in list(self.access_tokens.items()):
                if meant(token.client_id, token.user):
                    del self.access_tokens[value]
        return len(grants)

    def living_grants(self):
        return [
            {
                "user": grant.user.name, "client": grant.client_id, "scope": grant.scope,
                "authorized_at": grant.authorized_at, "refresh_token": token,
            }
            for token, grant in self.refresh_tokens.items() if grant.alive
        ]


def random_token(prefix, length):
    """`length` characters of base64url, starting as Spotify's do."""
    return (prefix + secrets.token_urlsafe(length))[:length]
