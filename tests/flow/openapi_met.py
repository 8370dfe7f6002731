"""The other way round: what openapi.yaml says that the service answers, some flow test has been answered.

    openapi_met.py FILE...      one for each run of flow tests, written where OPENAPI_MET said (conftest.py)"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from description import DOCUMENT, Document  # noqa: E402

# Listed, met by no test, and why.
UNMET = {}


def as_one(path, method, status):
    """What nginx says by itself is the same on all routes, and what it passes on for all methods."""
    if status == "default" and path.startswith("/auth/"):
        return "/auth/…", "any", status
    if path.startswith("/spotify/v1/") and method != "options":
        return path, "any", status
    return path, method, status


def main(files):
    document = Document(DOCUMENT.read_text())
    met = {tuple(place) for path in files for place in json.loads(pathlib.Path(path).read_text())}
    unmet = {as_one(*place) for place in document.statuses()} - {as_one(*listed) for *listed, _ in met}
    for status in document.whole["components"]["responses"]["OfNginx"]["x-statuses"]:
        if not any(listed == "default" and said == status for _, _, listed, said in met):
            unmet.add(("/auth/…", "any", status))
    for place in sorted(unmet - UNMET.keys()):
        print("no test has met:", *place)
    for place in sorted(UNMET.keys() - unmet):
        print("met after all, so no exception:", *place)
    print(f"{len(met)} kinds of answers met")
    return unmet != UNMET.keys()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
