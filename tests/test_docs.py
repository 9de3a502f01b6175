"""What README.md and docs/*.md say in Python runs, has the shapes that their comments name, and links to what exists.

A fence runs by itself in an empty folder. Words after "python" say what it needs: "mps" that device (the simulated one
where there is no Mac), any other one a package, without which it is skipped. A comment that begins with sizes in
parentheses, as `# (2, 80, 100)`, at the end of an assignment is the shape of what is assigned; `# x: (1, 16000)` that
of x.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import pytest
from conftest import require_route
from torchaudio_stub import import_torchaudio

import mps_spectro
from mps_spectro import audio, patch, use_backend

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```python([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHAPE = re.compile(r"#\s*(?:(\w+):\s*)?\(((?:\d+,\s*)*\d*)\)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


class Fence(NamedTuple):
    page: Path
    line: int  # of the page, before the code
    needs: tuple[str, ...]
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def fences() -> Iterator[Fence]:
    for page in PAGES:
        text = page.read_text()
        for found in _FENCE.finditer(text):
            yield Fence(page, text.count("\n", 0, found.start()) + 1, tuple(found[1].split()), found[2])


def run(fence: Fence) -> int:
    """Runs the code, compares shapes with comments, and returns how many."""
    names: dict[str, Any] = {"__name__": "__main__"}
    lines = fence.code.splitlines()
    compared = 0
    for statement in ast.parse(fence.code).body:
        ast.increment_lineno(statement, fence.line)
        exec(compile(ast.Module([statement], []), str(fence.page), "exec"), names)
        comment = _SHAPE.search(lines[(statement.end_lineno or 0) - fence.line - 1])
        if comment is None:
            continue
        name = comment[1]
        if name is None:
            assert isinstance(statement, ast.Assign), f"{fence}: a shape behind what is no assignment"
            (target,) = statement.targets
            assert isinstance(target, ast.Name), f"{fence}: whose shape is {comment[0]}?"
            name = target.id
        expected = tuple(int(size) for size in comment[2].split(",") if size.strip())
        assert tuple(names[name].shape) == expected, f"{fence.page.name}:{statement.end_lineno}: {name}"
        compared += 1
    return compared


@pytest.mark.parametrize("fence", list(fences()), ids=str)
def test_code(fence: Fence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = "auto"
    for need in fence.needs:
        if need == "mps":
            backend = require_route("mps").backend
        elif need == "torchaudio":
            import_torchaudio()
        else:
            pytest.importorskip(need)
    monkeypatch.chdir(tmp_path)
    try:
        with use_backend(backend):
            run(fence)
    finally:
        for handle in tuple(patch._handles):  # of a program that stays patched
            handle.undo()


def test_fences_are_found_and_shapes_compared(tmp_path: Path) -> None:
    assert len([fence for fence in fences() if fence.page.name == "README.md"]) >= 5
    good = "import torch\nx = torch.ones(2, 3)  # (2, 3)\ny = x.T; z = [\n    x]  # y: (3, 2)\n"
    assert run(Fence(tmp_path, 10, (), good)) == 2
    with pytest.raises(AssertionError, match="12: x"):
        run(Fence(tmp_path, 10, (), good.replace("# (2, 3)", "# (3, 2) of ones")))


def test_every_public_name_is_written_about() -> None:
    words = set(re.findall(r"\w+", "\n".join(page.read_text() for page in PAGES)))
    for module in (mps_spectro, audio):
        assert set(module.__all__) - {"__version__"} <= words


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings(page)}


def headings(page: Path) -> list[str]:
    return _HEADING.findall(re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
