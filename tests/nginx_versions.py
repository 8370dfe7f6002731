"""What `make test-nginx` does: nginx as other Debians have it, and the tests of nginx's configuration with each.

Each is unpacked, with the C library and OpenSSL that it was built for, below build/nginx/ and started by that library's
own loader: nothing is installed, and nobody has to be root. What cannot be had here is said, and is no failure; what
can be had and does not pass is one."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

TREE = pathlib.Path(__file__).resolve().parent.parent
KEPT = TREE / "build" / "nginx"
MIRROR = "http://deb.debian.org/debian"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = ("bookworm", "trixie", "forky")
# Debian 12's OpenSSL has another name than its successors'.
PACKAGES = ("nginx", "libc6", "libpcre2-8-0", "zlib1g", "libcrypt1")
OPENSSL = {"bookworm": "libssl3"}
TESTS = ["tests/flow/" + name for name in (
    "test_nginx.py", "test_nginx_errors.py", "test_nginx_limits.py", "test_nginx_hostile.py", "test_production.py",
    "test_web_api.py", "test_verify.py")]
PYTEST = ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-rs"]


class Missing(Exception):
    """Why a version cannot be had here."""


def call(*words, cwd=None):
    try:
        done = subprocess.run([str(word) for word in words], cwd=cwd, text=True, timeout=300,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    if done.returncode != 0:
        raise Missing(done.stdout.strip().splitlines()[-1] if done.stdout.strip() else f"{words[0]}: {done.returncode}")
    return done.stdout


def version_of(program):
    return re.search(r"nginx/([\d.]+)", call(program, "-v"))[1]


def apt(folder):
    """The options that keep apt's lists and downloads of one suite to itself."""
    for part in ("lists/partial", "cache/archives/partial", "packages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    source = folder / "sources.list"
    source.write_text(f"deb [signed-by={KEYS}] {MIRROR} {folder.name} main\n")
    options = {"Dir::Etc::sourcelist": source, "Dir::Etc::sourceparts": "-", "Dir::State::lists": folder / "lists",
               "Dir::Cache": folder / "cache", "APT::Sandbox::User": "root", "Acquire::Languages": "none"}
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def fetch(suite):
    """The path of a script that starts that suite's nginx. Kept for the next time."""
    folder = KEPT / suite
    script = folder / "nginx"
    if script.exists():
        return script
    options = apt(folder)
    call("apt-get", *options, "-q", "update")
    packages = [*PACKAGES, OPENSSL.get(suite, "libssl3t64")]
    call("apt-get", *options, "-q", "download", *(f"{name}/{suite}" for name in packages), cwd=folder / "packages")
    root = folder / "root"
    for package in (folder / "packages").glob("*.deb"):
        call("dpkg-deb", "--extract", package, root)
    for part in ("etc", "var", "usr/share"):
        shutil.rmtree(root / part, ignore_errors=True)
    libraries = [path for path in (root / "lib", root / "usr/lib") if path.is_dir()]
    loader = next((path for top in libraries for path in sorted(top.rglob("ld-linux-*.so.*"))), None)
    if loader is None:
        raise Missing("its C library has no loader where one was looked for")
    places = ":".join(sorted({str(path.parent) for top in libraries for path in top.rglob("*.so.*")}))
    script.write_text(f'#!/bin/sh\nexec "{loader}" --library-path "{places}" "{root}/usr/sbin/nginx" "$@"\n')
    script.chmod(0o755)
    for name in ("lists", "cache", "packages"):
        shutil.rmtree(folder / name)
    return script


def programs():
    """{version: program}, the installed one among them."""
    sbin = os.environ.get("PATH", "") + ":/usr/sbin"
    found = {version_of(shutil.which("nginx", path=sbin)): shutil.which("nginx", path=sbin)}
    for suite in SUITES:
        try:
            program = fetch(suite)
            found.setdefault(version_of(program), program)
        except Missing as error:
            print(f"nginx of Debian {suite}: not to be had here: {error}", flush=True)
    return found


def main():
    failed = False
    for version, program in sorted(programs().items()):
        print(f"nginx {version} ({program})", flush=True)
        done = subprocess.run([*PYTEST, *TESTS], cwd=TREE, env={**os.environ, "NGINX": str(program)},
                              stdin=subprocess.DEVNULL)
        failed = failed or done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
