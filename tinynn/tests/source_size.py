"""Lines and tokens of every package, as Markdown.

    python -m tinynn.tests.source_size [--markdown docs/size.md]

Counted are lines with code: no tests, blank lines, comments or docstrings. C, OpenCL and HTML that
stand in Python strings are counted by their lines and are not tokens.
"""
from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tinynn", "messaging", "modeld", "compiled_models", "selfdrive_tests", "drivesim")
NO_CODE = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT,
                     tokenize.DEDENT, tokenize.ENDMARKER})


def size(source: str) -> tuple[int, int, int]:
    """Lines of Python, its tokens, and lines within long strings (other languages)."""
    documented = set(_docstring_lines(ast.parse(source)))
    code: set[int] = set()
    inside: set[int] = set()
    tokens = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        first, last = token.start[0], token.end[0]
        if token.type in NO_CODE or first in documented:
            continue
        tokens += 1
        code |= {first, last}
        inside |= set(range(first + 1, last))
    return len(code), tokens, len(inside - code)


def _docstring_lines(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and (
                ast.get_docstring(node) is not None):
            yield from range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)


def table(root: Path = ROOT) -> list[str]:
    """A row per folder, and the sum of every package."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if "tests" in path.parts:
                continue
            python, tokens, other = size(path.read_text(encoding="utf-8"))
            folder = path.parent.relative_to(root).as_posix()
            for name in {folder, f"all of {package}"}:
                counts[name].update(files=1, python=python, tokens=tokens, other=other)
    rows = ["| folder | files | lines of Python | tokens a line | lines of C, OpenCL, HTML |",
            "|---|---:|---:|---:|---:|"]
    for package in PACKAGES:
        folders = sorted(n for n in counts if n == package or n.startswith(f"{package}/"))
        for name in [*folders, f"all of {package}"] if len(folders) > 1 else folders:
            c = counts[name]
            rows.append(f"| {name} | {c['files']} | {c['python']:,} | "
                        f"{c['tokens'] / max(1, c['python']):.1f} | {c['other']:,} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE",
                        help="put the table into the file, in place of the one it holds")
    options = parser.parse_args()
    rows = table()
    print("\n".join(rows))
    if options.markdown:
        lines = options.markdown.read_text(encoding="utf-8").splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith("| folder"))
        last = max(i for i, line in enumerate(lines) if line.startswith("| "))
        options.markdown.write_text("\n".join([*lines[:first], *rows, *lines[last + 1:]]) + "\n",
                                    encoding="utf-8")


if __name__ == "__main__":
    main()
