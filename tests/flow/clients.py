"""Service clients as SERVICE_CLIENTS lists them."""

import base64
import hashlib
import secrets

from conftest import EVIDENCE


class Client:
    """A name with a fresh secret, which the search for secrets looks for, too."""

    def __init__(self, name):
        self.name = name
        self.secret = secrets.token_urlsafe(32)
        digest = hashlib.sha256(self.secret.encode()).digest()
        self.entry = f"{name}:{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
        credentials = base64.b64encode(f"{name}:{self.secret}".encode()).decode()
        self.basic = "Basic " + credentials
        EVIDENCE.secrets[self.secret] = "service_secret"
        EVIDENCE.secrets[credentials] = "basic"
