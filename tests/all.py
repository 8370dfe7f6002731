"""Everything that `make test` does, in order, with the totals on the last line.

Each stage is a command; its tests are counted from what its runner prints (cmocka, pytest), a stage without such a
runner counts as one. Output of a stage goes to build/test/STAGE.log and is shown when the stage fails. FUZZ_SECONDS
says how long each fuzz target runs after its seeds were replayed."""

import functools
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

from model.check import CHECKS

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "test"
PYTHON = "/usr/bin/python3"
LATER = ["nice", "-n", "10"]
PYTEST = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-rs"]
SANITIZED = {"SPOTIFY_AUTH": str(ROOT / "build" / "asan" / "spotify-auth")}
FUZZ_SECONDS = os.environ.get("FUZZ_SECONDS", "10")
SANITIZE = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
STAGE_TIMEOUT_S = 900
FLOW_SHARES = 2
CLANG_FORMAT = 14  # Debian 12's; another version lays some lines out differently

totals = {"passed": 0, "failed": 0}
reporting = threading.Lock()


def count(output, returncode):
    passed = sum(int(n) for n in re.findall(r"^\[  PASSED  \] (\d+) test", output, re.M))
    failed = sum(int(n) for n in re.findall(r"^\[  FAILED  \] (\d+) test", output, re.M))
    for line in re.findall(r"^=*\s*((?:\d+ \w+(?:, )?)+) in [\d.]+s", output, re.M):
        passed += sum(int(n) for n in re.findall(r"(\d+) passed", line))
        failed += sum(int(n) for n in re.findall(r"(\d+) (?:failed|error)", line))
    if passed + failed == 0:
        passed, failed = (1, 0) if returncode == 0 else (0, 1)
    elif returncode != 0 and failed == 0:
        failed = 1
    return passed, failed


def stage(name, command, **environment):
    begun = time.monotonic()
    log = LOGS / (re.sub(r"\W+", "-", name) + ".log")
    with log.open("w") as out:
        try:
            code = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                  env={**os.environ, **environment}, timeout=STAGE_TIMEOUT_S).returncode
        except subprocess.TimeoutExpired:
            out.write(f"\nended after {STAGE_TIMEOUT_S} s\n")
            code = -1
    output = log.read_text(errors="replace")
    passed, failed = count(output, code)
    with reporting:
        totals["passed"] += passed
        totals["failed"] += failed
        print(f"{name:<44}{passed:>5} passed {failed:>3} failed {time.monotonic() - begun:7.1f} s", flush=True)
        for line in re.findall(r"^SKIPPED .*", output, re.M):
            print(f"    {line}", flush=True)
        if failed:
            print("\n".join(output.splitlines()[-60:]), flush=True)
    return failed == 0


def make(*arguments):
    return ["make", "--no-print-directory", "-j2", *arguments]


def c_files(*patterns):
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


def build():
    return all([
        stage("build: gcc", make("programs")),
        stage("build: clang", make("programs", "BUILD=build/clang", "CC=clang")),
        stage("build: sanitizers", make("programs", "BUILD=build/asan", f"MODE={SANITIZE}")),
        stage("build: fuzz targets", make("fuzz-programs", "BUILD=build/fuzz", "CC=clang",
                                          f"MODE={SANITIZE} -fsanitize=fuzzer-no-link")),
    ])


def clang_format_version():
    said = subprocess.run(["clang-format", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)", said)
    return int(found[1]) if found else None


def lint():
    sources = c_files("cgi/*.c", "cgi/*/*.c")
    headers = c_files("cgi/*/*.h")
    tests = c_files("tests/unit/*.[ch]", "tests/fuzz/*.[ch]")
    version = clang_format_version()
    if version == CLANG_FORMAT:
        stage("lint: clang-format", ["clang-format", "--dry-run", "-Werror", *sources, *headers, *tests])
    else:
        print(f"{'lint: clang-format':<44}left out: the layout is version {CLANG_FORMAT}'s, here is {version}", flush=True)
    stage("lint: cppcheck", ["cppcheck", "--std=c11", "-D__GNUC__", "--enable=warning,performance,portability", "--error-exitcode=1",
                             "--inline-suppr", "--suppress=missingIncludeSystem",
                             "--suppress=normalCheckLevelMaxBranches", "--quiet", "-j2", "-Icgi", "cgi"])
    # Not in .clang-tidy's list, because only newer versions know it; it wants casts to void * that C does without.
    unwanted = "--checks=-bugprone-multi-level-implicit-pointer-conversion"
    stage("lint: clang-tidy", ["clang-tidy", "--quiet", unwanted, *sources, "--", "-std=gnu11", "-D_GNU_SOURCE", "-Icgi"])
    stage("lint: floors of cgi/", [PYTHON, "tests/lint/floors.py"])
    stage("lint: settings table of the README", [PYTHON, "tests/lint/readme.py"])


def unit(name, folder, **environment):
    for program in c_files("tests/unit/test_*.c"):
        test = pathlib.Path(program).stem
        stage(f"unit {name}: {test[5:]}", [f"build/{folder}unit/{test}"], **environment)


def model():
    for name in CHECKS:
        stage(f"model: {name}", [*LATER, PYTHON, "tests/model/check.py", name])


def fuzz():
    for target in c_files("tests/fuzz/fuzz_*.c"):
        what = pathlib.Path(target).stem[5:]
        program = f"build/fuzz/fuzz/fuzz_{what}"
        corpus = ROOT / "build" / "corpus" / what
        corpus.mkdir(parents=True, exist_ok=True)
        seeds = c_files(f"tests/fuzz/seeds/{what}/*")
        stage(f"fuzz: {what}, {len(seeds)} seeds", [program, *seeds] if seeds else ["false"])
        stage(f"fuzz: {what}, {FUZZ_SECONDS} s", [*LATER, program, f"-max_total_time={FUZZ_SECONDS}", "-timeout=10",
                                                "-rss_limit_mb=2048", "-artifact_prefix=build/test/", str(corpus),
                                                f"tests/fuzz/seeds/{what}"])


def beside(*calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def flow_shares():
    """The files with flow tests, dealt by their sizes. Each share ends with the search for secrets in what it wrote."""
    secrets = "tests/flow/test_secrets.py"
    files = sorted(set(c_files("tests/flow/test_*.py")) - {secrets}, key=lambda path: -(ROOT / path).stat().st_size)
    shares = [[] for _ in range(FLOW_SHARES)]
    for path in files:
        min(shares, key=lambda share: sum((ROOT / each).stat().st_size for each in share)).append(path)
    return [[*share, secrets] for share in shares]


def flows():
    met = [str(LOGS / f"openapi-met-{number}.json") for number in range(FLOW_SHARES)]

    def run(number, files):
        stage(f"flows {number + 1} of {FLOW_SHARES}, under sanitizers", [*PYTEST, "--durations=15", *files],
              **SANITIZED, OPENAPI_MET=met[number])
    stage("simulated Spotify", [*PYTEST, "tests/spotify"])
    beside(*(functools.partial(run, number, files) for number, files in enumerate(flow_shares())))
    stage("flows: all that openapi.yaml says was met", [PYTHON, "tests/flow/openapi_met.py", *met])


def faults():
    stage("faults, under sanitizers", [*PYTEST, "-m", "not long", "tests/faults"], **SANITIZED)


def main():
    LOGS.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=0")
    os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    if build():
        lint()
        unit("gcc", "")
        unit("sanitized", "asan/")
        # Flows mostly wait, so they run beside each other; what only computes fills the time, and steps aside for them.
        beside(lambda: (model(), fuzz()), flows)
        faults()
    print(f"{totals['passed']} passed, {totals['failed']} failed")
    return 1 if totals["failed"] or not totals["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
