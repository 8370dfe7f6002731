"""Packages of npm as the lock in tests/npm says, installed into build/npm from the registry that npm is configured with."""

import fcntl
import functools
import json
import shutil
import subprocess

from stack import TREE, find_program

SOURCES = TREE / "tests" / "npm"
INSTALLED = TREE / "build" / "npm"
INSTALL_TIMEOUT_S = 300
# Node 18 has it as an experiment, later ones always.
CRYPTO = "--experimental-global-webcrypto"


@functools.cache
def installed():
    """The directory with node_modules; installs when the lock is not the one of last time. Several runs of the tests may
    ask beside each other."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    lock = (SOURCES / "package-lock.json").read_text()
    done = INSTALLED / "installed-lock.json"
    with open(INSTALLED / "one-at-a-time", "w") as one:
        fcntl.flock(one, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != lock:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SOURCES / name, INSTALLED)
            command = [find_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=INSTALLED, check=True, timeout=INSTALL_TIMEOUT_S, stdin=subprocess.DEVNULL)
            done.write_text(lock)
    return INSTALLED


def node(script, *arguments):
    """What a script of tests/npm prints, as JSON."""
    home = installed()
    shutil.copy(SOURCES / script, home)
    done = subprocess.run([find_program("node"), CRYPTO, script, *arguments], cwd=home, text=True, timeout=60,
                          stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout)
