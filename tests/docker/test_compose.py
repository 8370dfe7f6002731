"""compose.yaml as it is for real credentials: who reaches whom, secrets, what is kept, what is said when something is
missing."""

import json
import pathlib
import re

import pytest

from conftest import DOCKER, Compose, docker, inspect, log_in, processes, wait_until, written

# Their images say how they are healthy.
BUILT = {"worker", "simulated-worker", "simulated-spotify"}
HARDENED = {"ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"], "Privileged": False}


@pytest.fixture
def logged_in(deployment):
    return log_in(deployment, deployment.spotify, deployment.accounts)


def connects(container, host, port):
    """Whether a process in that container's networks reaches the port. Its own image has no tool to find out."""
    probe = f"import socket; socket.create_connection(({host!r}, {port}), 2)"
    done = docker("run", "--rm", "--network", f"container:{container}", "--entrypoint", "/usr/bin/python3",
                  "spotify-auth-simulated", "-c", probe, check=False)
    assert done.returncode == 0 or "create_connection" in done.stderr, done.stderr
    return done.returncode == 0


def addresses(container):
    """By network, without the project's name."""
    networks = inspect(container)["NetworkSettings"]["Networks"]
    return {name.rpartition("_")[2]: network["IPAddress"] for name, network in networks.items()}


# Whether it works


def test_login_by_tls_with_a_ca_of_its_own(deployment, logged_in):
    assert logged_in.session().json()["user"]["id"] == "ada"
    assert logged_in.refresh().status_code == 200


def test_web_api_by_tls(deployment, logged_in):
    answer = logged_in.fetch("GET", deployment.url + "/spotify/v1/me")
    assert answer.status_code == 200 and answer.json()["id"] == "ada"


def test_session_outlives_a_restart_of_everything(deployment, logged_in):
    deployment.run("restart", "redis", "worker", "nginx")
    deployment.up("--no-recreate")
    assert logged_in.session().json()["authenticated"] is True


def test_file_is_sound_by_composes_own_schema(deployment):
    """`docker compose config` checks it against the Compose Specification's JSON schema."""
    config = json.loads(deployment.run("config", "--format", "json"))
    assert {"nginx", "worker", "redis"} <= set(config["services"])


def test_profiles_are_the_real_one_without_asking_and_the_simulated_one_alone():
    def services(*words):
        return set(docker("compose", "-f", DOCKER / "compose.yaml", *words, "config", "--services").split())
    assert services() == {"nginx", "worker", "redis"}
    assert services("--profile", "own-redis") == {"nginx", "worker"}
    parts = ("nginx", "worker", "spotify", "redis")
    assert services("--profile", "simulated") == {f"simulated-{part}" for part in parts}


@pytest.mark.parametrize("profile", ["spotify", "simulated"])
def test_nobody_is_started_before_whom_he_needs_is_healthy(profile):
    config = json.loads(docker("compose", "-f", DOCKER / "compose.yaml", "--profile", profile, "config", "--format", "json"))
    services = config["services"]
    prefix = "simulated-" if profile == "simulated" else ""
    for service, others in {"nginx": {"worker"}, "worker": {"redis"} | ({"spotify"} if prefix else set())}.items():
        needs = services[prefix + service]["depends_on"]
        assert set(needs) == {prefix + other for other in others}
        assert {need["condition"] for need in needs.values()} == {"service_healthy"}
        assert all("healthcheck" in services[other] or other in BUILT for other in needs)


def test_check_says_that_the_settings_are_right(deployment):
    assert deployment.run("run", "--rm", "--no-deps", "-T", "worker", "--check").strip() == "ok"


def test_new_secrets_are_read_on_sighup(deployment, logged_in, tmp_path):
    keys = pathlib.Path(deployment.environment["SECRETS"], "session_keys")
    new = docker("run", "--rm", "--network", "none", "spotify-auth", "--new-key").strip()
    keys.write_text(f"new:{new.partition(':')[2]},{deployment.secrets['session_keys']}\n")
    deployment.run("kill", "-s", "HUP", "worker")
    for name in deployment.containers("worker"):
        wait_until(lambda: '"event":"reload"' in docker("logs", name, check=False).stderr, 10, "the reload")
    wait_until(lambda: logged_in.session().status_code == 200, 10, "workers with the new keys")
    assert logged_in.session().json()["authenticated"] is True
    assert log_in(deployment, deployment.spotify, deployment.accounts).session().json()["authenticated"] is True


def test_a_worker_that_dies_after_a_sighup_is_started_again(deployment):
    name = deployment.container("worker")
    deployment.run("kill", "-s", "HUP", "worker")
    before = inspect(name)["State"]
    # Not by `docker kill`, after which no policy would start it.
    docker("run", "--rm", "--network", "none", "--pid", "host", "--user", "0", "--entrypoint", "/usr/bin/python3",
           "spotify-auth-simulated", "-c", f"import os; os.kill({before['Pid']}, 9)")
    wait_until(lambda: inspect(name)["State"]["StartedAt"] != before["StartedAt"], 20, "the worker started again")
    wait_until(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", 30, "the worker healthy")


def test_health_check_of_a_worker_that_does_not_listen_asks_no_other_one(deployment):
    """All workers are found by one name, and the others answer at it."""
    done = deployment.run("run", "--rm", "--no-deps", "--use-aliases", "-T", "worker", "--health", check=False)
    assert done.returncode == 1
    assert "cannot connect to tcp:fastcgi:9000 (Connection refused)" in done.stderr, done.stderr


# Who reaches whom


def test_only_nginx_reaches_the_workers(deployment):
    worker, nginx, redis = map(deployment.container, ("worker", "nginx", "redis"))
    assert connects(nginx, addresses(worker)["workers"], 9000)
    for network, address in addresses(worker).items():
        assert not connects(redis, address, 9000), network
    for other in ("store", "internet"):
        assert not connects(worker, addresses(worker)[other], 9000), other


def test_only_workers_reach_redis(deployment):
    worker, nginx, redis = map(deployment.container, ("worker", "nginx", "redis"))
    assert set(addresses(redis)) == {"store"}
    assert connects(worker, addresses(redis)["store"], 6379)
    assert not connects(nginx, addresses(redis)["store"], 6379)


def test_only_nginx_has_a_port_of_the_machine_and_only_on_loopback(deployment):
    for service in ("nginx", "worker", "redis"):
        published = [bound for ports in inspect(deployment.container(service))["NetworkSettings"]["Ports"].values()
                     for bound in ports or []]
        if service == "nginx":
            assert published == [{"HostIp": "127.0.0.1", "HostPort": str(deployment.port)}]
        else:
            assert published == []


def test_redis_wants_the_password(deployment):
    redis = deployment.container("redis")
    with pytest.raises(AssertionError):
        assert "PONG" in docker("exec", redis, "redis-cli", "ping")
    assert "NOAUTH" in docker("exec", redis, "redis-cli", "ping")


# How they are held


@pytest.mark.parametrize("service", ["nginx", "worker", "redis"])
def test_container_is_hardened_and_limited(deployment, service):
    found = inspect(deployment.container(service))
    host = found["HostConfig"]
    assert {name: host[name] for name in HARDENED} == HARDENED
    assert host["Memory"] > 0 and host["NanoCpus"] > 0 and host["PidsLimit"] > 0
    assert found["State"]["Health"]["Status"] == "healthy"
    assert found["Config"]["StopTimeout"] > 30 or service == "redis"
    assert "0" not in {uid for uid, _, _ in processes(found["Name"].lstrip("/"))}


def test_nothing_is_written_outside_of_tmpfs_and_volumes(deployment, logged_in):
    for service in ("nginx", "worker"):
        assert written(deployment.container(service)) == [], service


def test_secrets_are_in_files_and_in_no_environment_argument_or_log(deployment, logged_in):
    for service in ("nginx", "worker", "redis"):
        name = deployment.container(service)
        shown = json.dumps(inspect(name)) + str(processes(name))
        for kind, secret in deployment.secrets.items():
            value = re.sub(r"^redis://:|@.*$", "", secret)
            assert value not in shown, (service, kind)
    logs = deployment.logs()
    assert [kind for kind, secret in deployment.secrets.items() if secret in logs] == []


def test_redis_keeps_what_it_has_and_refuses_rather_than_forgets(deployment):
    def asks(*words):
        environment = "REDISCLI_AUTH=$(sed 's|.*:\\([^@]*\\)@.*|\\1|' /run/secrets/redis_url)"
        return docker("exec", deployment.container("redis"), "sh", "-c", f"{environment} redis-cli {' '.join(words)}")
    assert asks("config", "get", "appendonly").split() == ["appendonly", "yes"]
    assert asks("config", "get", "maxmemory-policy").split() == ["maxmemory-policy", "noeviction"]
    assert int(asks("config", "get", "maxmemory").split()[1]) > 0


# What is said when something is missing


def test_without_secret_files_compose_names_the_one_that_is_missing(tmp_path):
    compose = Compose("spotify", SECRETS=str(tmp_path / "none"))
    try:
        with pytest.raises(AssertionError, match=r"none/(redis_url|session_keys|spotify_client_secret)"):
            compose.up()
    finally:
        compose.down()


def test_without_a_client_id_the_worker_names_it_and_the_start_fails(deployment):
    compose = Compose("spotify", SPOTIFY_CLIENT_ID="", SECRETS=deployment.environment["SECRETS"])
    try:
        with pytest.raises(AssertionError, match="worker"):
            compose.up()
        assert "SPOTIFY_CLIENT_ID" in compose.logs("worker")
    finally:
        compose.down()


@pytest.mark.parametrize("url", ["", "redis://redis:6379/0", "redis://:@redis:6379/0", "redis://:a%41@redis:6379/0",
                                 "redis://:two words@redis:6379/0", "redis://me:secret@redis:6379/0"])
def test_redis_says_when_its_secret_is_no_url_that_it_can_read(tmp_path, url):
    """What a worker would take for one password and Redis for another one would be refused with no cause to be seen."""
    (tmp_path / "redis_url").write_text(url + "\n")
    (tmp_path / "redis_url").chmod(0o644)
    tmp_path.chmod(0o755)
    compose = Compose("spotify", SECRETS=str(tmp_path))
    try:
        compose.run("up", "-d", "--no-build", "redis")
        wait_until(lambda: "secrets/redis_url is not redis://:PASSWORD@redis:6379/0" in compose.logs("redis"), 10,
                   "the cause")
    finally:
        compose.down()


def test_nginx_starts_without_workers_and_says_503(deployment, logged_in):
    deployment.run("stop", "worker")
    try:
        deployment.run("restart", "nginx")
        nginx = deployment.container("nginx")
        wait_until(lambda: inspect(nginx)["State"]["Health"]["Status"] == "healthy", 30, "nginx")
        answer = logged_in.session()
        assert answer.status_code == 503 and answer.headers["Retry-After"]
        assert answer.json()["error"] == "temporarily_unavailable"
    finally:
        deployment.up("--no-recreate")
    wait_until(lambda: logged_in.session().status_code == 200, 10, "the workers found again")

