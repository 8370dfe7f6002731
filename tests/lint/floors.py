"""The floors of cgi/: a file includes only headers of lower floors or of its own, without circles, and each library is
seen only where it belongs. Prints what breaks a rule; exit 1 if anything does."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2] / "cgi"

# From low to high; floors in one line do not see each other.
FLOORS = [["base"], ["http"], ["store", "spotify"], ["flows"], ["handlers"], ["front"], ["process"], ["."]]
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}

# Which files may include the headers of a library.
LIBRARIES = {
    r"fcgi\w*\.h": r"front/",
    r"hiredis/.*": r"store/redis",
    r"openssl/.*": r"store/redis_tls\.c",
    r"curl/.*": r"spotify/upstream\.c|base/origin\.c",
    r"sodium\.h": r"base/(seal|seal_box|buf)\.c",
    r"jansson\.h": r"base/json\.[ch]|spotify/answer\.c",
}


def includes(path):
    return re.findall(r'^#include ([<"])([^>"]+)[>"]', path.read_text(), re.M)


def floor_of(relative):
    return relative.split("/")[0] if "/" in relative else "."


def broken_floors(name, path):
    for kind, target in includes(path):
        if kind == '"':
            if not (ROOT / target).exists():
                yield f"{name}: includes {target}, which is not there"
            here, there = floor_of(name), floor_of(target)
            if here != there and HEIGHT[there] >= HEIGHT[here]:
                yield f"{name}: includes {target} of a floor that is not below"
        else:
            for pattern, allowed in LIBRARIES.items():
                if re.fullmatch(pattern, target) and not re.match(allowed, name):
                    yield f"{name}: includes <{target}>, which belongs to {allowed}"


def module_of(name):
    """x.c, x.h and the parts x_*.c of a larger module are one."""
    folder, _, stem = name[:-2].rpartition("/")
    parts = stem.split("_")
    for count in range(1, len(parts)):
        shorter = "/".join(filter(None, [folder, "_".join(parts[:count])]))
        if (ROOT / f"{shorter}.h").exists():
            return shorter
    return name[:-2]


def circles(graph):
    """Modules of one floor that include each other."""
    state = {}

    def visit(node, path):
        state[node] = "open"
        for after in sorted(graph.get(node, ())):
            if state.get(after) == "open":
                yield " -> ".join(path[path.index(after):] + [after]) if after in path else f"{node} -> {after}"
            elif after not in state:
                yield from visit(after, path + [after])
        state[node] = "done"

    for node in sorted(graph):
        if node not in state:
            yield from visit(node, [node])


def main():
    problems, graph = [], {}
    files = sorted(ROOT.rglob("*.[ch]"))
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        if floor_of(name) not in HEIGHT:
            problems.append(f"{name}: not on any floor")
            continue
        problems += broken_floors(name, path)
        module = module_of(name)
        targets = {module_of(target) for kind, target in includes(path) if kind == '"'}
        graph.setdefault(module, set()).update(targets - {module})
    problems += [f"circle: {circle}" for circle in circles(graph)]
    print("\n".join(problems) or f"{len(files)} files, no rule broken")
    return 1 if problems or not files else 0


if __name__ == "__main__":
    sys.exit(main())
