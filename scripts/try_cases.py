"""What this version says to inputs that trouble users: runs every case and prints what is right beside what is said.

    python scripts/try_cases.py [NAME ...]

A case is a folder with small files and a cmd.sh, whose head says RIGHT: what should be said. The folder of the cases is
$ADCDNET_CASES (default ../shared/cases from the project's root). A person reads the answers; the tests hold them.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(names: list[str]) -> int:
    folder = Path(os.environ.get("ADCDNET_CASES", ROOT.parent / "shared" / "cases"))
    cases = [file for file in sorted(folder.glob("*/cmd.sh")) if not names or file.parent.name in names]
    if not cases:
        print(f"no case in {folder}; set ADCDNET_CASES to the folder that holds them", file=sys.stderr)
        return 1
    tracebacks = 0
    with tempfile.TemporaryDirectory() as temp:
        command = Path(temp, "adcdnet")
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m adcdnet.cli "$@"\n')
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
        for case in cases:
            right = [line for line in case.read_text(encoding="utf-8").splitlines() if line.startswith("# RIGHT")]
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
            environment = {**os.environ, "ADCDNET": str(command), "PATH": path}
            done = subprocess.run(["bash", str(case)], env=environment, capture_output=True, text=True, check=False)
            said = (done.stdout + done.stderr).strip()
            tracebacks += "Traceback" in said
            print(f"## {case.parent.name}\n{right[0].removeprefix('# ') if right else ''}\n\n{said}\n")
    print(f"{len(cases)} cases, {tracebacks} with a traceback")
    return int(tracebacks > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
