"""The command line answers at once: what is slow to import waits for the command that needs it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SLOW = [
    "boto3",
    "distributed",
    "fastapi",
    "numpy",
    "tantivy",
    "tuf",
    "urllib3",
    "usearch",
    "uvicorn",
    "zfec",
]
PROGRAM = """
import json, sys
from controller.cli import main

sys.argv = ["genctl", "--help"]
try:
    main()
except SystemExit as exit:
    assert not exit.code, exit.code
print(json.dumps(sorted(sys.modules)))
"""


def test_help_imports_no_slow_library() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    *help_lines, loaded = run.stdout.splitlines()
    assert any(line.startswith("Usage:") for line in help_lines), run.stdout
    assert [name for name in SLOW if name in set(json.loads(loaded))] == []
