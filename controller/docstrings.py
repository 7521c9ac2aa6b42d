"""Real text that is on every machine: the docstrings of the installed standard library.

Sources are parsed, never imported, so nothing of them runs.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
MIN_LENGTH = 40


def standard_library() -> Iterator[dict[str, Any]]:
    """Documents ``{"id", "title", "text"}``, one a documented module, class or function.

    In the order of the files' paths; the ids are dotted names and distinct.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _LEFT_OUT.intersection(parts) or any("-" in part for part in parts):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        for name, text in _docstrings(path):
            identity = f"{module}.{name}" if name else module
            if len(text) >= MIN_LENGTH and identity not in seen:
                seen.add(identity)
                first, _, _ = text.partition("\n")
                yield {"id": identity, "title": f"{identity}: {first}", "text": text}


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # a template or a broken file; the library has plenty of others
    pending: list[tuple[str, ast.AST]] = [("", tree)]
    while pending:
        name, node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield name, text
        pending += [
            (f"{name}.{child.name}" if name else child.name, child)
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
