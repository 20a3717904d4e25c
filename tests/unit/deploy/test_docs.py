"""What the pages say exists, and what exists is on the pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.errors import Reason
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore
from tests.unit.deploy.test_compose import FORMS
from tests.unit.deploy.test_dockerfile import SETTINGS

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

_CLIENT = "".join(path.read_text() for path in sorted((DOCS.parent / "imagesearch").rglob("*.py")))
_READ_BY_S3_CLIENTS = {
    f"AWS_{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "ENDPOINT_URL")
}
_READ_BY_THE_CLIENT = set(re.findall(r"""environ(?:ment)?(?:\.get\(|\[)["']([A-Z_]+)["']""", _CLIENT))


@pytest.mark.parametrize("page", [DOCS.parent / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text())
    places = [(page.parent / path if path else page, anchor) for path, anchor in links]
    assert [place for place, _ in places if not place.exists()] == []
    assert [(place.name, anchor) for place, anchor in places if anchor and anchor not in anchors(place)] == []


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_variable_that_a_page_names_is_a_setting_or_explained_in_the_compose_file(page: Path) -> None:
    known = {field.upper() for settings in SETTINGS.values() for field in settings.model_fields} | {
        "MODEL_PORT",
        "WATCHER_PORT",
        "NO_PROGRESS",
        "OMP_NUM_THREADS",
        "FAULT_SEED",
        "FUZZ_SEED",
        "DECODE_SEED",
        "LOAD_SEED",
        *_READ_BY_S3_CLIENTS,
        *_READ_BY_THE_CLIENT,
    }
    composed = "".join((DOCS.parent / form).read_text() for form in FORMS)
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", page.read_text()))
    assert {name for name in named - known if name not in composed} == set()


def test_every_route_of_the_api_is_told_by_example(tmp_path: Path) -> None:
    page = (DOCS / "reference" / "api.md").read_text()
    settings = SearchSettings(images_dir=tmp_path, data_dir=tmp_path)
    app = create_app(settings, embedder=FakeEmbedder(), vectors=FakeVectorStore(), catalog=FakeCatalog())
    routes = {resource.canonical.replace("{image_id}", "{id}") for resource in app.router.resources()}
    public = {route.removeprefix("/api/v1") for route in routes if not route.startswith(("/static", "/docs/files"))} - {"/"}
    untold = {route for route in public if route not in page and route.replace("{id}", "$ID") not in page}
    assert untold == set()


def test_every_reason_is_explained_and_none_is_made_up() -> None:
    page = (DOCS / "how-to" / "why-a-file-is-not-indexed.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {reason.value for reason in Reason}
