"""make test-docker: builds the images, starts them with compose, and runs tests/docker/test_*.py before them.

Where this machine has a Docker engine with compose, it is used. Elsewhere Debian 13's own is, in build/trixie (see
tests/trixie.py): its daemon has namespaces of its own for processes, mounts and, but for the build, the network, and
what it made ends with it. No registry is needed there: the base image is made by debootstrap, and the image of Redis
from Debian's package. What that leaves out is said at the end."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TREE / "tests"))
import trixie  # noqa: E402

HERE = TREE / "tests" / "docker"
PACKAGES = """docker.io docker-cli docker-compose docker-buildx iptables iproute2 procps openssl nodejs
    python3-pytest python3-requests python3-yaml""".split()
BASE = "spotify-auth-test-base"
REDIS = "spotify-auth-test-redis"
IMAGES = {"service": "spotify-auth", "nginx": "spotify-auth-nginx", "simulated": "spotify-auth-simulated"}
NO_CLUSTER = "not shown here: kubernetes.yaml in a cluster; its fields, names and numbers were checked"
START_S = 60
# In the root a real root: what joins a container's namespaces starts at their root, which a chroot is not.
ENTER = """
cd "$0" && mount --bind . . && cd "$0" && mount -t proc proc proc && mount --rbind /dev dev && mount --rbind /sys sys &&
mount -t tmpfs tmpfs run && mkdir -p mnt/old && pivot_root . mnt/old && cd / && umount -l /mnt/old &&
cd /src/spotify-auth && sh -c '"$@"; exit $?' sh "$@"
"""


def say(text):
    print(text, flush=True)


def run(*argv, **how):
    return subprocess.run([str(word) for word in argv], **{"check": True, "stdin": subprocess.DEVNULL, **how})


def has_engine():
    if shutil.which("docker") is None:
        return False
    return all(run("docker", *what, check=False, capture_output=True).returncode == 0
               for what in (["info"], ["compose", "version"]))


# The parts, as they run where the engine is


def build(base, redis):
    how = ["--network", "host", "--build-arg", f"BASE={base}"]
    for target, name in IMAGES.items():
        begun = time.monotonic()
        done = run("docker", "build", *how, "-f", "docker/Dockerfile", "--target", target, "-t", name, ".", cwd=TREE,
                   check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        (TREE / "build").mkdir(exist_ok=True)
        (TREE / "build" / f"docker-{target}.log").write_text(done.stdout)
        if done.returncode != 0:
            say("\n".join(done.stdout.splitlines()[-60:]))
            raise SystemExit(f"the image {name} cannot be built")
        say(f"built {name} in {time.monotonic() - begun:.0f} s")
    if redis:
        run("docker", "build", "-q", *how, "-f", HERE / "redis.Dockerfile", "-t", redis, HERE,
            stdout=subprocess.DEVNULL)


def test():
    # The Spotify of these tests is reached by an address, which its certificate does not show.
    # What a test found is shown, too: size and contents of the image, and how many requests there were.
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", "-rsP", "-W", "ignore:Unverified HTTPS"]
    more = os.environ.get("PYTEST_ARGS", "").split()
    return run(sys.executable, "-m", "pytest", *options, *more, HERE, cwd=TREE, check=False).returncode


class Daemon:
    """Debian's dockerd, for as long as the block takes."""

    def __init__(self, *options):
        # Groups of its own, so that those left behind can be told from others.
        self.argv = ["dockerd", "--cgroup-parent=/spotify-auth-test", *options]

    def __enter__(self):
        with open(TREE / "build" / "dockerd.log", "ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while run("docker", "info", check=False, capture_output=True).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("Debian's dockerd does not start here; its log ends so:\n" +
                                 "\n".join((TREE / "build" / "dockerd.log").read_text().splitlines()[-10:]))
            time.sleep(0.2)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        for path in pathlib.Path("/sys/fs/cgroup").glob("**/spotify-auth-test"):
            for part in [*sorted(path.glob("**/*/"), reverse=True), path]:
                if part.is_dir():
                    part.rmdir()


def build_inside():
    # Without networks of its own: containers of a build use this machine's, to fetch packages.
    with Daemon("--bridge=none", "--iptables=false"):
        if run("docker", "image", "inspect", BASE, check=False, capture_output=True).returncode != 0:
            run("docker", "import", "build/base.tar", BASE, cwd=TREE, stdout=subprocess.DEVNULL)
        build(BASE, REDIS)


def test_inside():
    run("ip", "link", "set", "lo", "up")
    os.environ["REDIS_IMAGE"] = REDIS
    with Daemon():
        return test()


# Around them


def npm():
    """Definitions of Kubernetes' objects, into build/docker-npm."""
    folder = TREE / "build" / "docker-npm"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "npm" / name, folder)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    return folder


def inside(part, *namespaces):
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(f"/etc/{name}", trixie.ROOT / "etc" / name)
    argv = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", *namespaces,
            "sh", "-c", ENTER, trixie.ROOT, "/usr/bin/python3", "tests/docker/main.py", part]
    given = {"PYTEST_ARGS": os.environ.get("PYTEST_ARGS", "")}
    return run(*argv, check=False, env=trixie.environment(**given)).returncode


def own_engine():
    """With Debian 13's packages, in build/trixie."""
    trixie.make(PACKAGES)
    trixie.copy_tree()
    copy = trixie.ROOT / trixie.COPY.lstrip("/")
    (copy / "build").mkdir(exist_ok=True)
    if not (copy / "build/base.tar").exists():
        base = TREE / "build" / "docker-base"
        shutil.rmtree(base, ignore_errors=True)
        trixie.bootstrap(base)
        run("tar", "-C", base, "-cf", copy / "build/base.tar.new", ".")
        (copy / "build/base.tar.new").rename(copy / "build/base.tar")
        shutil.rmtree(base)
    shutil.rmtree(copy / "build/docker-npm", ignore_errors=True)
    shutil.copytree(npm(), copy / "build/docker-npm", symlinks=True)
    say("engine: Debian 13's, in build/trixie, without a registry")
    code = inside("build") or inside("test", "--net")
    say("not shown here: debian:trixie-slim and redis:8, which come from a registry; a base by debootstrap and Redis\n"
        "of Debian stood for them")
    say(NO_CLUSTER)
    return code


def main():
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    if part:
        return {"build": build_inside, "test": test_inside}[part]()
    if has_engine():
        say("engine: this machine's")
        npm()
        build("debian:trixie-slim", None)
        code = test()
        say(NO_CLUSTER)
        return code
    try:
        return own_engine()
    except trixie.NotHere as why:
        say(f"not shown here: there is no Docker engine with compose, and none can be started: {why}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
