"""What the README shows can be copied: nginx takes each of its blocks, beside the files of nginx/."""

import itertools
import re
import subprocess

import pytest
import yaml

from stack import TREE, find_program

README = (TREE / "README.md").read_text()
BLOCKS = re.findall(r"^```nginx\n(.*?)^```$", README, re.M | re.S)
MOUNT = README.partition("\n## Mount it in your own nginx\n")[2].partition("```nginx\n")[2].partition("```")[0]


def in_place(block):
    """The block where it belongs: a whole file, a server beside the one of the service, or a part of that one."""
    if block.startswith("http {"):
        return block
    if block.startswith("server {"):
        return MOUNT.rstrip().removesuffix("}") + block + "}\n"
    start = MOUNT.index("        include spotify-auth.conf;")
    return MOUNT[:start] + block + MOUNT[start:]


def test_each_use_has_a_picture_and_a_block():
    for heading in ("### For servers", "### For phones", "### For terminals", "## Watch it",
                    "## The Web API without a token in the browser", "## Pages for those who are logged in"):
        text = re.split("\n##+ ", README.partition(f"\n{heading}\n")[2])[0]
        assert "```mermaid\n" in text and "```nginx\n" in text, heading


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("{")[0].strip())
def test_nginx_takes_the_block(tmp_path, block):
    for path in (TREE / "nginx").glob("*.conf"):
        # The one name that nginx looks up when it starts: this machine may be away from the net.
        (tmp_path / path.name).write_text(path.read_text().replace("server api.spotify.com:", "server 127.0.0.1:"))
    ports = itertools.count(1)
    text = re.sub(r"listen [^;]*;", lambda _: f"listen 127.0.0.1:{next(ports)};", in_place(block))
    text = text.replace("/var/log/nginx/", f"{tmp_path}/")
    config = tmp_path / "main.conf"
    config.write_text(f"events {{}}\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\n{text}")
    tested = subprocess.run([find_program("nginx"), "-t", "-p", tmp_path, "-c", config, "-e", tmp_path / "error.log"],
                            capture_output=True, text=True, timeout=30)
    assert tested.returncode == 0 and "[warn]" not in tested.stderr, tested.stderr


def test_what_others_are_told_to_call_is_there():
    """Routes by openapi.yaml, methods of the client module by its declarations."""
    routes = set(yaml.safe_load((TREE / "nginx" / "www" / "openapi.yaml").read_text())["paths"])
    methods = set(re.findall(r"^  (\w+)\(", (TREE / "nginx" / "www" / "spotify-auth.d.ts").read_text(), re.M))
    text = README.partition("\n## Coming from something else\n")[2].partition("\n## ")[0]
    named = {path.rstrip("/") for path in re.findall(r"/auth(/[\w/]+)", text) + re.findall(r'auth \+ "(/[\w/]+)"', text)}
    called = set(re.findall(r"\bauth\.(\w+)\(", text))
    assert {"/authorize", "/swap", "/api/token"} <= named and {"login", "token", "fetch", "logout"} <= called
    assert named <= {route.removeprefix("/auth") for route in routes} and called <= methods
