"""The settings table in README.md is the one that the program prints. With --write it is put there; without, a difference
is an error."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(<!-- settings -->\n).*?(<!-- /settings -->)", re.S)


def main():
    program = os.environ.get("SPOTIFY_AUTH", str(ROOT / "build" / "spotify-auth"))
    text = subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
    table = "".join(line + "\n" for line in text.splitlines() if line.startswith("|"))
    readme = ROOT / "README.md"
    before = readme.read_text()
    after, found = BLOCK.subn(lambda match: match[1] + table + match[2], before)
    if found != 1 or not table:
        print("README.md has no settings block, or the program no table")
        return 1
    if "--write" in sys.argv:
        readme.write_text(after)
    elif after != before:
        print("README.md: the settings table is not the program's; run `make readme`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
