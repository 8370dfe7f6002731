"""kubernetes.yaml, as far as it can be checked without a cluster: the name and type of every field, by the definitions
of the npm package kubernetes-types, and that its parts fit each other and compose.yaml."""

import json
import re
import subprocess

import pytest
import yaml

from conftest import DOCKER, TREE

NPM = TREE / "build" / "docker-npm"
MODULES = {"v1": "core/v1", "apps/v1": "apps/v1", "policy/v1": "policy/v1", "networking.k8s.io/v1": "networking/v1"}


@pytest.fixture(scope="module")
def objects():
    return list(yaml.safe_load_all((DOCKER / "kubernetes.yaml").read_text()))


def typescript(objects):
    lines = []
    for number, found in enumerate(objects):
        module, kind = MODULES[found["apiVersion"]], found["kind"]
        lines.append(f'import type {{{kind} as K{number}}} from "kubernetes-types/{module}";')
        lines.append(f"export const o{number}: K{number} = {json.dumps(found)};")
    return "\n".join(lines)


def compile_objects(objects, folder):
    file = NPM / f"{folder.name}.ts"
    file.write_text(typescript(objects))
    try:
        command = ["node", NPM / "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck"]
        return subprocess.run([*command, "--module", "nodenext", file], cwd=NPM, text=True, capture_output=True)
    finally:
        file.unlink()


def by_kind(objects, kind):
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def test_every_field_is_one_of_kubernetes(objects, tmp_path):
    done = compile_objects(objects, tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_wrong_field_would_be_found(objects, tmp_path):
    wrong = json.loads(json.dumps(objects))
    worker = by_kind(wrong, "Deployment")["spotify-auth-worker"]
    worker["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    assert "readinessProb" in compile_objects(wrong, tmp_path).stdout


def test_selectors_and_ports_fit(objects):
    pods = {name: found["spec"]["template"] for name, found in by_kind(objects, "Deployment").items()}
    labels = {name: pod["metadata"]["labels"] for name, pod in pods.items()}
    for kind in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"):
        for name, found in by_kind(objects, kind).items():
            spec = found["spec"]
            selector = spec.get("podSelector") or spec["selector"]
            assert selector.get("matchLabels", selector) in labels.values(), name
    containers = [container for pod in pods.values() for container in pod["spec"]["containers"]]
    services = by_kind(objects, "Service").values()
    wanted = {port["targetPort"] for found in services for port in found["spec"]["ports"]}
    assert wanted <= {port["name"] for container in containers for port in container["ports"]}


def test_pods_are_hardened_and_end_later_than_their_requests(objects):
    for name, found in by_kind(objects, "Deployment").items():
        spec = found["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["terminationGracePeriodSeconds"] > 30, name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"], name
            assert context["capabilities"] == {"drop": ["ALL"]} and "memory" in container["resources"]["limits"], name
            assert {"readinessProbe", "livenessProbe"} <= set(container), name


def test_users_are_those_of_the_images(objects):
    users = re.findall(r"^USER (\d+):", (DOCKER / "Dockerfile").read_text(), re.M)
    for found in by_kind(objects, "Deployment").values():
        assert str(found["spec"]["template"]["spec"]["securityContext"]["runAsUser"]) in users


def test_secrets_are_files_that_exist_in_the_secret(objects):
    held = set(by_kind(objects, "Secret")["spotify-auth"]["stringData"])
    worker = by_kind(objects, "Deployment")["spotify-auth-worker"]["spec"]["template"]["spec"]["containers"][0]
    named = {entry["value"].rpartition("/")[2] for entry in worker["env"] if entry["name"].endswith("_FILE")}
    assert named == held == set(yaml.safe_load((DOCKER / "compose.yaml").read_text())["secrets"])
