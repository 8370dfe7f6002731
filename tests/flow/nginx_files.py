"""nginx with its files a little changed: what takes too long, or too many requests, to be seen as it is shipped."""

import contextlib
import re
import shutil

from conftest import LISTED_ORIGIN
from stack import TREE, Nginx, reserve_port

TRUSTED = "127.0.0.1"


class Changed(Nginx):
    """The shipped files after `change`, a function from a file's name and text to its new text."""

    def __init__(self, directory, addresses, listen, change):
        super().__init__(directory, addresses, listen)
        files = self.directory / "files"
        shutil.copytree(TREE / "nginx", files)
        for path in files.glob("*.conf"):
            path.write_text(change(path.name, path.read_text()))
        self.values.update(files=files, api_file=files / "spotify-api.conf")

    def write_config(self):
        super().write_config()
        text = (self.values["files"] / "nginx.conf").read_text()
        for name, value in self.values.items():
            text = text.replace(f"@{name}@", str(value))
        self.config.write_text(text)


@contextlib.contextmanager
def beside(stack, change, addresses=None, origins=LISTED_ORIGIN):
    """A further nginx before the services of `stack`, as something that has a `url` and an `nginx`."""
    with reserve_port() as holder:
        listen = f"127.0.0.1:{holder.getsockname()[1]}"
        directory = stack.directory / f"nginx-{listen.rpartition(':')[2]}"
        nginx = Changed(directory, addresses or [service.nginx_address for service in stack.services], listen, change)
        nginx.ask_api(stack.spotify.url)
        nginx.list_origins(origins)
        nginx.start()
        try:
            yield Place(stack, nginx)
        finally:
            nginx.stop()


class Place:
    """Where a Browser or a plain request can go: a stack by another door."""

    def __init__(self, stack, nginx):
        self.stack = stack
        self.nginx = nginx
        self.url = nginx.url
        self.services = stack.services
        self.spotify = stack.spotify
        self.redis = stack.redis
        self.redirect_uri = stack.redirect_uri


def behind_proxy(name, text):
    """nginx behind a proxy at TRUSTED, as spotify-auth-proxy.conf is to be edited and included."""
    if name == "spotify-auth-proxy.conf":
        text, count = re.subn(r"(?m)^set_real_ip_from .*\n", "", text)
        assert count == 2
        return f"set_real_ip_from {TRUSTED};\n" + text
    if name == "nginx.conf":
        return text.replace("include @origins@;", "include @origins@;\n    include @files@/spotify-auth-proxy.conf;")
    return text


def narrow(name, text):
    """The same, with limits that a few requests reach: four at once, and one in ten seconds."""
    text = behind_proxy(name, text)
    text = re.sub(r"rate=\d+r/s", "rate=6r/m", text)
    return re.sub(r"burst=\d+", "burst=3", text)
