"""The page's files by themselves: small modules that fit together, nothing inline, nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[3] / "searchsvc" / "web"
MODULES = sorted(WEB.glob("*.js"))
STYLES = sorted(WEB.glob("*.css"))


class _Document(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"} and data.strip():
            self.inline.append(data)


def _index() -> _Document:
    document = _Document()
    document.feed((WEB / "index.html").read_text())
    return document


def test_nothing_is_inline_so_the_content_security_policy_can_forbid_it() -> None:
    document = _index()
    assert document.inline == []
    names = {name for _, attributes in document.elements for name in attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}
    assert not [path.name for path in MODULES if re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(", path.read_text())]


def test_everything_comes_from_the_service_itself() -> None:
    for _, attributes in _index().elements:
        for name in ("src", "href", "action"):
            assert not (attributes.get(name) or "").startswith(("http", "//"))
    for path in [*MODULES, *STYLES]:
        addresses = set(re.findall(r"https?://[^\s\"')]+", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name


def test_every_file_that_the_page_names_exists() -> None:
    named = [
        value for _, attributes in _index().elements for value in attributes.values() if value and value.startswith("/static/")
    ]
    assert named
    assert all((WEB / name.removeprefix("/static/")).is_file() for name in named)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_imports_only_what_its_neighbours_export(module: Path) -> None:
    for names, source in re.findall(r'import (?:\{([^}]*)\}|\* as \w+) from "\./([\w.]+)"', module.read_text()):
        exported = set(re.findall(r"export (?:async )?(?:class|const|function) (\w+)", (WEB / source).read_text()))
        assert {name.strip() for name in names.split(",") if name.strip()} <= exported


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_finds_the_elements_that_it_asks_for(module: Path) -> None:
    ids = {attributes.get("id") for _, attributes in _index().elements}
    asked = set(re.findall(r'(?:byId|getElementById)\("([\w-]+)"\)', module.read_text()))
    assert asked <= ids


@pytest.mark.parametrize("path", [*MODULES, *STYLES], ids=lambda path: path.name)
def test_a_file_stays_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 250


def test_every_control_has_a_name_for_those_who_do_not_see_it() -> None:
    document = _index()
    labelled = {attributes.get("for") for tag, attributes in document.elements if tag == "label"}
    markup = (WEB / "index.html").read_text()
    within_labels = set(re.findall(r"<label[^>]*>(?:(?!</label>).)*?<(?:input|select)[^>]*?(?:id|value)=\"([\w-]+)\"", markup))
    for tag, attributes in document.elements:
        if tag in {"input", "select"}:
            name = attributes.get("id") or attributes.get("value")
            assert "aria-label" in attributes or name in labelled or name in within_labels, attributes
