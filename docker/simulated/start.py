"""The simulated Spotify in a container, with one registered app. Its secret and a fresh key for sessions are put into
/run/simulated, which the worker beside it reads. Everybody who is simulated is gone when it ends.

    start.py             serves until SIGTERM
    start.py --health    exit code 0 when it answers"""

import asyncio
import base64
import os
import pathlib
import secrets
import signal
import sys
import urllib.request

from spotify.server import Server
from spotify.state import Client

SHARED = pathlib.Path("/run/simulated")
ORIGIN = os.environ.get("SPOTIFY_ACCOUNTS_URL", "http://127.0.0.1:8090")
PORT = int(ORIGIN.rpartition(":")[2])
KEPT = {"keep": 100000, "log_max": 10000, "secrets_max": 50000}


def share(name, text):
    path = SHARED / name
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")


async def serve():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server("Simulated Spotify", **KEPT)
    server.origin = ORIGIN
    secret = secrets.token_hex(16)
    server.state.clients["simulated"] = Client("simulated", secret, [os.environ["SPOTIFY_REDIRECT_URI"]])
    share("client_secret", secret)
    share("session_keys", "simulated:" + base64.b64encode(secrets.token_bytes(32)).decode())
    listener = await loop.create_server(server.web, "0.0.0.0", PORT, backlog=1024)
    print("SIMULATED SPOTIFY: no account, no music and no password is real here. Open", os.environ["PAGE"], flush=True)
    await stop.wait()
    listener.close()
    server.hanging.release()
    await server.web.shutdown(timeout=1)


def answers():
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=3) as answer:
        return answer.status == 200


if __name__ == "__main__":
    if sys.argv[1:] == ["--health"]:
        sys.exit(0 if answers() else 1)
    asyncio.run(serve())
