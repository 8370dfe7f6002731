"""What a REDIS_URL may lead to, as real processes on loopback ports: one Redis or Valkey, a master with replicas and
the Sentinels that watch it, a Cluster; each with or without TLS. They take the place of stack.Redis: alive, start(),
stop(), url. The service is a user of its own there, who may do what the README says that it needs, and no more."""

import contextlib
import pathlib
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.parse

import redis as redis_client

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]

from stack import ONCE, TREE, Process, StartError, find_program, reserve_port, wait_until  # noqa: E402

HOST = "127.0.0.1"
PREFIX = "spotify-auth:"
USER = "service"
MASTER_NAME = "sessions"
DOWN_AFTER_MS = 1000
NODE_TIMEOUT_MS = 2000
MASTERS, REPLICAS = 3, 3
SLOTS = 16384
ASKED_OF_SENTINELS = "sentinel|get-master-addr-by-name"  # as the README says


def rules_of_the_readme():
    """The ACL rules of the user that the README tells its reader to make."""
    text = (TREE / "README.md").read_text()
    commands, = re.findall(r"and the\s+commands `([A-Z |\s]+)`", text)
    return " ".join(["-@all", *(f"+{name.lower()}" for name in commands.split()), "resetkeys", f"~{PREFIX}*"])


def server_program(engine):
    """Debian's valkey-server is another name of valkey-tools' valkey-check-rdb, in a package that would start one."""
    with contextlib.suppress(StartError):
        return find_program(f"{engine}-server")
    link = TREE / "build" / f"{engine}-server"
    if not link.exists():
        link.symlink_to(find_program(f"{engine}-check-rdb"))
    return link


class Tls:
    """A server's certificate and key, and who has issued it; clients have to show a certificate of the same issuer."""

    def __init__(self, authority, pair, client_pair):
        self.authority, self.pair, self.client_pair = authority, pair, client_pair

    def lines(self, port):
        certificate, key = self.pair
        return ["port 0", f"tls-port {port}", f"tls-cert-file {certificate}", f"tls-key-file {key}",
                f"tls-ca-cert-file {self.authority}", "tls-auth-clients yes", "tls-replication yes"]

    def settings(self):
        certificate, key = self.client_pair
        return {"REDIS_CA_FILE": self.authority, "REDIS_CERT_FILE": certificate, "REDIS_KEY_FILE": key}

    def cli_options(self):
        certificate, key = self.client_pair
        return ["--tls", "--cacert", self.authority, "--cert", certificate, "--key", key]


class Server(Process):
    """One redis-server or valkey-server, with an append-only file that survives kill and restart."""

    def __init__(self, directory, lines=(), engine="redis", tls=None, arguments=()):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.engine, self.tls, self.arguments = engine, tls, arguments
        self._holder = reserve_port(HOST)
        self.port = self._holder.getsockname()[1]
        self.config = self.directory / "redis.conf"
        self.socket_path = self.directory / "redis.sock"  # for tests, whatever the ports are like
        ports = tls.lines(self.port) if tls else [f"port {self.port}"]
        ports.append(f"unixsocket {self.socket_path}")
        self.config.write_text("\n".join([f"bind {HOST}", *ports, f"dir {self.directory}", "daemonize no", *lines, ""]))
        super().__init__(f"{engine} {self.port}", self.directory / "redis.log")

    def start(self):
        self.socket_path.unlink(missing_ok=True)
        self.launch([server_program(self.engine), self.config, *self.arguments])
        self.wait_ready(self.answers)
        return self

    def client(self):
        return redis_client.Redis(unix_socket_path=str(self.socket_path), socket_timeout=5, retry=ONCE)

    def answers(self):
        with contextlib.suppress(redis_client.RedisError), self.client() as client:
            return client.ping()
        return False

    def pause(self):
        """SIGSTOP: it stays connected and answers nothing any more."""
        self.signal(signal.SIGSTOP)

    def cont(self):
        self.signal(signal.SIGCONT)

    def end(self):
        """For good, and at once: what is stored is not wanted any more."""
        self.kill()
        self._holder.close()

    def role(self):
        return self.client().info("replication")["role"]


class Engine:
    """What all of them have in common."""

    def __init__(self, directory, engine="redis", tls=None):
        self.directory = pathlib.Path(directory)
        self.engine, self.tls = engine, tls
        self.password = secrets.token_urlsafe(16) + "/@"
        self.started = False

    def user_line(self, rules):
        return f"user {USER} on >{self.password} {rules}"

    def data_lines(self):
        return ["appendonly yes", 'save ""', self.user_line(rules_of_the_readme())]

    def make_url(self, scheme, rest):
        """scheme: without TLS."""
        password = urllib.parse.quote(self.password, safe="")
        return f"{scheme.replace('redis', 'rediss', 1) if self.tls else scheme}://{USER}:{password}@{rest}"

    def settings(self):
        """Of the service, to use this."""
        return {"REDIS_URL": self.url, **(self.tls.settings() if self.tls else {})}

    @property
    def alive(self):
        return self.started and all(server.alive for server in self.servers)

    def stop(self):
        for server in reversed(self.servers):
            server.end()
        self.started = False

    def refusals(self):
        """The commands that the service was refused, on any server."""
        found = set()
        for server in self.servers:
            if server.alive:
                found |= {entry["object"].lower() for entry in server.client().acl_log() if entry["username"] == USER}
        return found

    def session_names(self):
        """Of all sessions that are stored, as the keys have them."""
        return {re.search(r"\{(.*)\}", key.decode())[1] for client in self.masters()
                for key in client.scan_iter(f"{PREFIX}session:*", count=1000)}


class One(Engine):
    """One server."""

    def __init__(self, directory, engine="redis", tls=None):
        super().__init__(directory, engine, tls)
        self.server = Server(self.directory / "one", self.data_lines(), engine, tls)
        self.servers = [self.server]
        self.url = self.make_url("redis", f"{'localhost' if tls else HOST}:{self.server.port}/0")

    def start(self):
        self.server.start()
        self.started = True
        return self

    def client(self):
        return self.server.client()

    def masters(self):
        return [self.client()]

    def restart(self):
        self.server.kill()
        self.server.start()


class Sentinels(Engine):
    """A master, two replicas, and three Sentinels of which two have to agree."""

    def __init__(self, directory, engine="redis", tls=None):
        super().__init__(directory, engine, tls)
        lines = [*self.data_lines(), "repl-diskless-sync-delay 0"]
        self.data = [Server(self.directory / f"data-{number}", lines, engine, tls) for number in range(3)]
        master = self.data[0].port
        for replica in self.data[1:]:
            with replica.config.open("a") as config:
                config.write(f"replicaof {HOST} {master}\n")
        watch = [f"sentinel monitor {MASTER_NAME} {HOST} {master} 2",
                 f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}",
                 f"sentinel failover-timeout {MASTER_NAME} 5000", self.user_line("-@all +" + ASKED_OF_SENTINELS),
                 f"user default on nopass ~* &* +@all -{ASKED_OF_SENTINELS}"]
        self.sentinels = [Server(self.directory / f"sentinel-{number}", watch, engine, tls, ["--sentinel"])
                          for number in range(3)]
        self.servers = [*self.data, *self.sentinels]
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        self.url = self.make_url("redis+sentinel", f"{hosts}/{MASTER_NAME}")

    def start(self):
        for server in self.servers:
            server.start()
        wait_until(self.is_whole, 30, "Sentinels and replicas know each other", 0.1)
        self.started = True
        return self

    def state(self, sentinel):
        words = [word.decode() for word in sentinel.client().execute_command("SENTINEL", "MASTER", MASTER_NAME)]
        return dict(zip(words[::2], words[1::2]))

    def is_whole(self):
        """All Sentinels see each other, and two replicas that are up to date."""
        if any(int(self.state(sentinel)["num-other-sentinels"]) != 2 for sentinel in self.sentinels):
            return False
        replicas = self.master().client().info("replication")
        return replicas["connected_slaves"] == 2 and all(
            replicas[f"slave{number}"]["state"] == "online" for number in range(2))

    def master(self):
        """The server that the Sentinels call master."""
        port = next(int(self.state(sentinel)["port"]) for sentinel in self.sentinels if sentinel.alive)
        return next(server for server in self.data if server.port == port)

    def client(self):
        return self.master().client()

    def masters(self):
        return [self.client()]

    def fail_over(self):
        """Ask for another master, and wait until the Sentinels have one that says so itself."""
        before = self.master()
        self.sentinels[0].client().execute_command("SENTINEL", "FAILOVER", MASTER_NAME)
        return self.wait_for_another(before)

    def wait_for_another(self, before):
        def another():
            with contextlib.suppress(redis_client.RedisError):
                now = self.master()
                return now if now is not before and now.role() == "master" else None
        return wait_until(another, 30, "another master", 0.02)


class Cluster(Engine):
    """Three masters with a replica each."""

    def __init__(self, directory, engine="redis", tls=None):
        super().__init__(directory, engine, tls)
        lines = [*self.data_lines(), "cluster-enabled yes", f"cluster-node-timeout {NODE_TIMEOUT_MS}",
                 "repl-diskless-sync-delay 0", *(["tls-cluster yes"] if tls else [])]
        self._bus = [reserve_port(HOST) for _ in range(MASTERS + REPLICAS)]
        self.servers = [Server(self.directory / f"node-{number}", [*lines, f"cluster-port {bus.getsockname()[1]}"],
                               engine, tls) for number, bus in enumerate(self._bus)]
        hosts = ",".join(f"{HOST}:{server.port}" for server in self.servers[:MASTERS])
        self.url = self.make_url("redis+cluster", hosts)

    def start(self):
        for server in self.servers:
            server.start()
        self.cli("--cluster", "create", *(f"{HOST}:{server.port}" for server in self.servers),
                 "--cluster-replicas", "1", "--cluster-yes")
        wait_until(self.is_whole, 30, "the Cluster stands", 0.1)
        self._by_id = {server.client().execute_command("CLUSTER", "MYID").decode(): server for server in self.servers}
        self.started = True
        return self

    def stop(self):
        super().stop()
        for holder in self._bus:
            holder.close()

    def cli(self, *words, timeout_s=120):
        program = [find_program(f"{self.engine}-cli"), *(self.tls.cli_options() if self.tls else [])]
        done = subprocess.run([*program, *words], capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"{' '.join(words[:2])}: {done.stdout[-300:]}{done.stderr[-300:]}"
        return done.stdout

    def nodes(self, seen_by=None):
        """As a living node sees them: dicts with id, flags, slots."""
        source = seen_by or next(server for server in self.servers if server.alive)
        return [parse_node(line) for line in source.client().execute_command("CLUSTER", "NODES").decode().splitlines()]

    def is_whole(self):
        def sees_all(server):
            info = server.client().execute_command("CLUSTER", "INFO").decode()
            nodes = self.nodes(server)
            return "cluster_state:ok" in info and len(masters_of(nodes)) == MASTERS and len(nodes) == len(self.servers)
        with contextlib.suppress(redis_client.RedisError):
            links = [server.client().info("replication").get("master_link_status") for server in self.servers]
            return all(sees_all(server) for server in self.servers) and links.count("up") == REPLICAS
        return False

    def server_of(self, node):
        return self._by_id[node["id"]]

    def masters(self):
        return [self.server_of(node).client() for node in masters_of(self.nodes())]

    def move_slots(self, source, target, count):
        """count slots, with all that is in them, from one master to another, once all agree on who has what."""
        def agree():
            views = [{node["id"]: node["slots"] for node in self.nodes(server)} for server in self.servers]
            return views.count(views[0]) == len(views)
        wait_until(agree, 30, "the nodes agree", 0.1)
        self.cli("--cluster", "reshard", f"{HOST}:{self.servers[0].port}", "--cluster-from", source["id"],
                 "--cluster-to", target["id"], "--cluster-slots", str(count), "--cluster-yes")

    def move_slowly(self, source, target, slots, seconds):
        """Slots that stay open between two masters for so long, while their keys go over one by one: what is asked for
        there is sent on by ASK, and scripts whose keys are on both sides have to wait."""
        here, there = self.server_of(source), self.server_of(target)
        for slot in slots:
            there.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source["id"])
            here.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target["id"])
        for slot in slots:
            time.sleep(seconds / len(slots))
            self._move_keys(here, there, slot, 1)
        for slot in slots:
            self._move_keys(here, there, slot, 1000)
            for server in (there, here, *self.servers):
                if server.role() == "master":
                    server.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", target["id"])

    @staticmethod
    def _move_keys(here, there, slot, count):
        for key in here.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, count):
            here.client().execute_command("MIGRATE", HOST, there.port, key, 0, 5000)

    def errors(self, *words):
        """How often all nodes have said each of these so far."""
        said = [server.client().execute_command("INFO", "errorstats") for server in self.servers if server.alive]
        said = " ".join(text if isinstance(text, str) else str(text) for text in said)
        return {word: sum(map(int, re.findall(rf"errorstat_{word}\W+count\W+(\d+)", said))) for word in words}

    def wait_for_another(self, before):
        """Until a replica has taken over the slots of the node that is gone."""
        def taken_over():
            with contextlib.suppress(redis_client.RedisError):
                nodes = [node for node in self.nodes() if node["id"] != before["id"]]
                return sum(len(node["slots"]) for node in masters_of(nodes)) == SLOTS
        wait_until(taken_over, 60, "a replica in the place of its master", 0.05)


def slots_of(text):
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def masters_of(nodes):
    """Those that serve; a replica that nobody has told yet calls itself a master, too."""
    return [node for node in nodes if "master" in node["flags"] and "fail" not in node["flags"] and node["slots"]]


def parse_node(line):
    ident, _, flags, _, _, _, _, _, *slots = line.split()
    return {"id": ident, "flags": flags.split(","),
            "slots": {slot for text in slots if not text.startswith("[") for slot in slots_of(text)}}
