"""What a module imports, read from the sources: also what it imports only when it needs it."""

import ast
from collections.abc import Iterator
from pathlib import Path


def imported_files(root: Path, module: str) -> set[str]:
    """Files below ``root`` that a module there, its packages and all their imports consist of."""
    found: set[str] = set()
    todo = [module]
    while todo:
        parts = todo.pop().split(".")
        for length in range(1, len(parts) + 1):
            file = _file(root, parts[:length])
            if file is not None and (name := file.relative_to(root).as_posix()) not in found:
                found.add(name)
                todo += _imports(file)
    return found


def _file(root: Path, parts: list[str]) -> Path | None:
    path = root.joinpath(*parts)
    candidates = path / "__init__.py", path.with_suffix(".py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
