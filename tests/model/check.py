"""Check the model of the renewal protocol, renewal.pml, with spin: every state that can be reached.

    check.py [NAME...]    these checks, else all
    check.py --list       their names
    check.py --deep       with more going wrong at once: two minutes, 2 GiB

The model must hold, and with a deliberate fault (a macro that renewal.pml knows) it must break the very rule that the
fault is about. A search that was cut off by depth, memory or time says nothing, and is a failure."""

import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple, Optional

MODEL = pathlib.Path(__file__).resolve().parent / "renewal.pml"
DEPTH = 100000
MEMORY_MB = 3500
HASH_BITS = 24
BUILD_TIMEOUT_S, SEARCH_TIMEOUT_S = 120, 600

RULES = {  # what shows in spin's words which one is broken
    "once": "call_token",
    "unused": "is_excused",
    "never_older": "stored_generation",
    "kept": "stored_token>=new_token",
    "given_back": "lease!=me",
    "every_end": "acceptance cycle",
}


class Check(NamedTuple):
    flags: str = ""
    breaks: Optional[str] = None
    is_liveness: bool = False


CHECKS = {
    "nothing is lost, used twice or undone": Check(),
    "every request ends, Redis away": Check("LOSSES=0", None, True),
    "every request ends, a command lost": Check("OUTAGES=0", None, True),
    "fault: no fencing by generation": Check("NO_FENCING", "never_older"),
    "fault: commit overwrites": Check("BLIND_COMMIT", "never_older"),
    "fault: lease shorter than the call": Check("SHORT_LEASE", "once"),
    "fault: no look at the clock": Check("NO_CLOCK", "once"),
    "fault: release of another's lease": Check("BLIND_RELEASE LOSSES=0", "once"),
    "fault: second write without its lease": Check("LEASE_LET_GO LOSSES=0", "unused"),
    "fault: kept result thrown away": Check("RESULT_THROWN_AWAY", "kept"),
    "fault: earlier answer wins": Check("EARLIER_WINS", "kept"),
    "fault: lease left behind": Check("LEASE_LEFT", "given_back"),
    "fault: call goes on alone": Check("CALL_GOES_ON", "once"),
    "fault: waiter looks once": Check("WAITER_LOOKS_ONCE LOSSES=0", "every_end", True),
}

DEEP = {
    "two commands lost": Check("LOSSES=2"),
    "Redis away twice": Check("OUTAGES=2"),
    "workers killed twice": Check("CRASHES=2"),
    "every request ends": Check("", None, True),
}


def run(command, folder, timeout_s):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s)


def search(check, folder):
    """What pan says at the end of its search."""
    kind = [] if check.is_liveness else ["-DSAFETY", "-DNOCLAIM"]
    speed = "-O0" if check.breaks else "-O2"  # a fault is found before a better compilation pays
    for step in (["spin", *(f"-D{flag}" for flag in check.flags.split()), "-a", str(MODEL)],
                 ["gcc", speed, "-w", *kind, f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c"]):
        done = run(step, folder, BUILD_TIMEOUT_S)
        if done.returncode:
            raise RuntimeError(f"{step[0]}: {done.stdout}{done.stderr}")
    fairness = ["-a", "-f"] if check.is_liveness else []
    done = run(["./pan", f"-m{DEPTH}", f"-w{HASH_BITS}", *fairness], folder, SEARCH_TIMEOUT_S)
    return done.stdout + done.stderr


def is_whole(check, said):
    """Whether the search went everywhere, and looked for what it should."""
    cut = re.search(r"max search depth too small|not completed|MEMLIM|out of memory|table full|truncated", said)
    looked_for = r"acceptance\s+cycles\s+\+ \(fairness enabled\)" if check.is_liveness else r"assertion violations\s+\+"
    return not cut and "Full statespace search for" in said and re.search(looked_for, said) is not None


def broken_rule(said):
    found = re.search(r"^pan:\d+: (.*)$", said, re.M)
    if not found:
        return None
    return next((rule for rule, word in RULES.items() if word in found[1]), found[1])


def verdict(check, said):
    broken = broken_rule(said)
    if broken:
        return broken == check.breaks, f"breaks {broken}"
    if not is_whole(check, said) or "errors: 0" not in said:
        return False, "not searched to the end"
    return not check.breaks, "holds"


def figures(said):
    states = re.search(r"([\d.e+]+) states, stored", said)
    memory = re.search(r"(\d+)[\d.]*\s+total actual memory", said)
    return f"{int(float(states[1])):,} states, {memory[1]} MiB, " if states and memory else ""


def passes(name, check):
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="spotify-auth-model-") as folder:
        try:
            said = search(check, folder)
            good, words = verdict(check, said)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            said, good, words = str(error), False, "no verdict"
    print(f"{'ok ' if good else 'BAD'} {name}: {words} ({figures(said)}{time.monotonic() - begun:.1f} s)", flush=True)
    if not good:
        print(said)
    return good


def main():
    names = sys.argv[1:]
    if names == ["--list"]:
        print("\n".join(CHECKS))
        return 0
    checks = DEEP if names == ["--deep"] else {name: CHECKS.get(name) for name in names or CHECKS}
    unknown = [name for name, check in checks.items() if check is None]
    if unknown:
        print(f"no such check: {', '.join(unknown)}; --list names them", file=sys.stderr)
        return 2
    return 0 if all([passes(name, check) for name, check in checks.items()]) else 1


if __name__ == "__main__":
    sys.exit(main())
