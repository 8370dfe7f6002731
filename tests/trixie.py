"""A Debian 13 in a directory, build/trixie, for what Debian 12 does not have: a newer hiredis, libfcgi, curl and nginx,
Valkey, and a base for images.

    trixie.py make [PACKAGE...]    make it (debootstrap), and install packages in it
    trixie.py run COMMAND...       run a command in it
    trixie.py in-tree COMMAND...   the same in a copy of this tree; on a Debian 13, right in the tree

Packages come from where this machine's apt has its own. Whatever runs inside has namespaces of its own for mounts and
processes, which end with it: nothing stays mounted or running, however it ends. The network is this machine's."""

import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

TREE = pathlib.Path(__file__).resolve().parent.parent
ROOT = TREE / "build" / "trixie"
COPY = "/src/spotify-auth"  # of the tree, inside
CERTIFICATES = pathlib.Path("/usr/local/share/ca-certificates")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# The inner shell stays, as the first process, and takes care of orphans.
ENTER = """
mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" sh -c '"$@"; exit $?' sh "$@"
"""


class NotHere(Exception):
    """There can be no such root on this machine; the text says why."""


def is_native():
    """Whether this machine itself is a Debian 13."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME") == "trixie"


def check():
    """Raise NotHere where a root cannot be made or entered."""
    if os.geteuid() != 0:
        raise NotHere("to make a Debian 13 root takes root's rights")
    for program in ("debootstrap", "apt-get", "unshare"):
        if shutil.which(program, path=environment()["PATH"]) is None:
            raise NotHere(f"the program {program} is not installed")
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode != 0:
        raise NotHere("this machine lets not even root have mounts of its own (a container without CAP_SYS_ADMIN)")


def environment(**more):
    kept = {name: os.environ[name] for name in PROXIES if name in os.environ}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive", **kept, **more}


def quietly(argv, what):
    """Its output; NotHere with the end of it when it fails."""
    done = subprocess.run(argv, env=environment(), stdin=subprocess.DEVNULL, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise NotHere(f"{what} failed:\n" + "\n".join(done.stdout.splitlines()[-20:]))
    return done.stdout


# Making it


def mirrors():
    """By label, where this machine's apt has Debian ("Debian") and its security updates ("Debian-Security") from."""
    for command in (None, ["apt-get", "update", "-qq"]):
        if command:
            quietly(command, "apt-get update")
        lines = quietly(["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"],
                        "apt-get indextargets").splitlines()
        found = dict(line.split("|", 1) for line in reversed(lines))
        if "Debian" in found:
            return found
    raise NotHere("this machine's apt has no packages of Debian's")


def sources():
    found = mirrors()
    lines = [f"deb {found['Debian']} {suite} main" for suite in ("trixie", "trixie-updates")]
    if "Debian-Security" in found:
        lines.append(f"deb {found['Debian-Security']} trixie-security main")
    return "\n".join(lines) + "\n"


def how_to_fetch():
    """This machine's settings of apt for its ways to a mirror: proxies, retries, what is not checked."""
    settings = quietly(["apt-config", "dump", "Acquire"], "apt-config").splitlines()
    return "".join(f"{line}\n" for line in settings if re.match(r"Acquire::(https?\b|Retries|Check-)", line))


def bootstrap(root):
    quietly(["debootstrap", "--variant=minbase", "trixie", str(root), mirrors()["Debian"]], "debootstrap")
    (root / "etc/apt/sources.list").write_text(sources())
    (root / "etc/apt/apt.conf.d/90fetch").write_text(how_to_fetch())
    # No package starts a daemon.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    if CERTIFICATES.is_dir():  # who has to trust a proxy of his own, has to do it inside as well
        shutil.copytree(CERTIFICATES, root / CERTIFICATES.relative_to("/"), dirs_exist_ok=True)
    (root / COPY.lstrip("/")).mkdir(parents=True)


def make(packages=()):
    """The root, made if it is not there, with these packages; only asks for packages when one is missing."""
    check()
    if not ROOT.exists():
        new = ROOT.with_name("trixie.new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(exist_ok=True)
        bootstrap(new)
        quietly(inside(["apt-get", "update", "-qq"], new), "apt-get update in the root")
        quietly(inside(["apt-get", "upgrade", "-y", "-qq"], new), "apt-get upgrade in the root")
        new.rename(ROOT)
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        quietly(inside(["apt-get", "update", "-qq"]), "apt-get update in the root")
        quietly(inside(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]),
                "apt-get install in the root")
    return ROOT


def is_installed(package):
    asked = subprocess.run(["dpkg-query", f"--admindir={ROOT}/var/lib/dpkg", "-W", "-f=${Status}", package],
                           capture_output=True, text=True)
    return asked.stdout == "install ok installed"


# Being in it


def inside(argv, root=ROOT):
    """The words that run argv in the root, to be started with environment()."""
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(f"/etc/{name}", root / "etc" / name)
    return ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
            "sh", "-c", ENTER, str(root), *argv]


def copy_tree():
    """The tree as it is, put into the root; what was built there before stays."""
    copy = ROOT / COPY.lstrip("/")
    for old in copy.iterdir():
        if old.is_symlink() or old.is_file():
            old.unlink()
        elif old.name != "build":
            shutil.rmtree(old)
    ignored = shutil.ignore_patterns("build", ".run", ".git", "__pycache__", ".pytest_cache")
    shutil.copytree(TREE, copy, symlinks=True, ignore=ignored, dirs_exist_ok=True)


def in_tree(argv):
    return inside(["sh", "-c", f'cd {COPY} && exec "$@"', "sh", *argv])


def main():
    action, *words = sys.argv[1:] or ["help"]
    if action not in ("make", "run", "in-tree") or (action != "make" and not words):
        print(__doc__)
        return 2
    if action == "in-tree" and is_native():
        os.chdir(TREE)
        os.execvp(words[0], words)
    try:
        if action == "make":
            print(make(words))
            return 0
        make(["make"] if action == "in-tree" else [])
        if action == "in-tree":
            copy_tree()
    except NotHere as why:
        print(f"not shown on Debian 13: {why}", file=sys.stderr)
        return 1
    argv = inside(words) if action == "run" else in_tree(words)
    os.execvpe(argv[0], argv, environment())


if __name__ == "__main__":
    sys.exit(main())
