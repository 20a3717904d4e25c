"""One contract over both homes of pictures: a folder, and a bucket of a real S3 service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from core.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from core.images.folder import ImageFolder
from core.images.kinds import TELLING_BYTES
from core.ports import ImageStore, ShownAs
from tests.buckets import FakeS3
from tests.fakes import picture

NAMES = ["a.jpg", "a/1.jpg", "a/b/2.jpg", "a b/ü+%41&=.jpg", "a-b.jpg", "a0.jpg", "b/~1|$'.png", "z.jpg", "ä/é.jpg", "😀.jpg"]
SHOWN = ShownAs("image/png", "inline; filename*=UTF-8''x.png", 60)


class Outside(Protocol):
    """Whoever else puts files there."""

    def put(self, path: str, content: bytes) -> object: ...

    def fill(self, contents: dict[str, bytes]) -> None: ...

    def delete(self, path: str) -> None: ...


class OutsideFolder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: str, content: bytes) -> None:
        """As programs do that replace a file: a new one in its place."""
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".{file.name}.new")
        aside.write_bytes(content)
        aside.replace(file)

    def fill(self, contents: dict[str, bytes]) -> None:
        for path, content in contents.items():
            self.put(path, content)

    def delete(self, path: str) -> None:
        (self._root / path).unlink()


@dataclass
class Home:
    store: ImageStore
    outside: Outside
    take_away: object


@pytest.fixture(scope="module")
def service() -> Iterator[FakeS3]:
    with FakeS3() as service:
        yield service


@pytest.fixture(params=["folder", "bucket", "bucket with a prefix"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    if request.param == "folder":
        root = tmp_path / "images"
        root.mkdir()
        yield Home(ImageFolder(root), OutsideFolder(root), lambda: root.rename(tmp_path / "away"))
        return
    service: FakeS3 = request.getfixturevalue("service")
    bucket = service.bucket(f"b{time.monotonic_ns()}", "my photos/2024" if "prefix" in request.param else "")
    yield Home(bucket.opened(tmp_path / "cache"), bucket, service.go)
    service.come_back()


def paths(store: ImageStore, below: str = "", after: str = "") -> list[str]:
    return [file.path for page in store.list(below, after=after) for file in page]


def test_files_are_listed_in_the_order_of_their_paths_bytes_and_hidden_ones_are_not(home: Home) -> None:
    for name in [*reversed(NAMES), ".hidden.jpg", "a/.cache/x.jpg", "~$lock.jpg"]:
        home.outside.put(name, name.encode())
    assert paths(home.store) == sorted(NAMES, key=str.encode)
    assert paths(home.store, "a") == ["a/1.jpg", "a/b/2.jpg"]
    assert paths(home.store, "nothing") == []


def test_a_listing_goes_on_behind_any_path_whether_it_is_there_or_not(home: Home) -> None:
    for name in NAMES:
        home.outside.put(name, b"x")
    ordered = sorted(NAMES, key=str.encode)
    for after in [*NAMES, "a", "a/b", "a/b/9.jpg", "0", "zz"]:
        assert paths(home.store, after=after) == [name for name in ordered if name.encode() > after.encode()], after
    assert paths(home.store, "a", after="a/1.jpg") == ["a/b/2.jpg"]


def test_a_thousand_and_more_files_come_in_pages_once_each(home: Home) -> None:
    names = [f"{n % 7}/{n:05}.jpg" for n in range(2101)]
    home.outside.fill(dict.fromkeys(names, b"x"))
    pages = list(home.store.list())
    assert len(pages) > 1
    assert max(map(len, pages)) <= 1000
    assert [file.path for page in pages for file in page] == sorted(names)
    middle = pages[0][-1].path
    assert paths(home.store, after=middle) == sorted(names)[len(pages[0]) :]


def test_a_listing_and_a_look_tell_the_same_of_a_file(home: Home) -> None:
    home.outside.put("a/1.jpg", b"some bytes")
    (listed,) = next(iter(home.store.list()))
    assert home.store.stat("a/1.jpg") == listed
    assert (listed.path, listed.size) == ("a/1.jpg", 10)
    assert abs(listed.modified_ns / 1e9 - time.time()) < 60
    assert listed.version
    assert home.store.read("a/1.jpg", most_bytes=100)[0] == listed


def test_the_version_is_another_when_the_bytes_were_replaced(home: Home) -> None:
    home.outside.put("x.jpg", b"one")
    first = home.store.stat("x.jpg")
    assert home.store.read("x.jpg", most_bytes=9)[1] == b"one"
    assert home.store.stat("x.jpg") == first
    home.outside.put("x.jpg", b"two")
    assert home.store.stat("x.jpg").version != first.version
    assert home.store.read("x.jpg", most_bytes=9)[1] == b"two"
    with home.store.open("x.jpg") as opened:
        assert opened.file.read() == b"two"


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 70_000])
def test_reading_is_bounded_and_tells_the_whole_size(home: Home, size: int) -> None:
    content = bytes(n % 251 for n in range(size))
    home.outside.put("x.bin", content)
    for most_bytes in (0, 1, 32, 69_999, 70_000, 100_000):
        file, read = home.store.read("x.bin", most_bytes=most_bytes)
        assert (file.size, read) == (size, content[:most_bytes])
    assert home.store.peek("x.bin")[1] == content[:TELLING_BYTES]
    with home.store.open("x.bin") as opened:
        assert (opened.size, opened.first_bytes, opened.file.read()) == (size, content[:TELLING_BYTES], content)


def test_an_open_file_stays_what_it_was(home: Home) -> None:
    home.outside.put("x.jpg", b"one")
    with home.store.open("x.jpg") as opened:
        home.outside.put("x.jpg", b"two!")
        home.outside.delete("x.jpg")
        assert opened.file.read() == b"one"


@pytest.mark.parametrize(
    "path", ["nothing.jpg", "a", "a/1.jpg/x", "../a/1.jpg", "a/../a/1.jpg", "a//1.jpg", "a/", "", "/a/1.jpg", "a/\n.jpg"]
)
def test_what_is_no_file_is_not_found(home: Home, path: str) -> None:
    home.outside.put("a/1.jpg", b"x")
    if isinstance(home.store, ImageFolder) and path in {"a/../a/1.jpg", "a//1.jpg"}:
        pytest.skip("spellings of a file that is there")
    for look in (home.store.stat, home.store.open, home.store.peek, lambda path: home.store.read(path, most_bytes=9)):
        with pytest.raises((NotFound, Forbidden)):
            look(path)


def test_a_new_file_gets_the_first_name_that_no_other_bytes_have(home: Home) -> None:
    home.outside.put("new/a.jpg", b"other")
    assert home.store.add("new", ["a.jpg", "a-1.jpg"], b"mine") == "new/a-1.jpg"
    assert home.store.add("new", ["a.jpg", "a-1.jpg"], b"mine") == "new/a-1.jpg"
    assert home.store.add("", ["ü b.jpg"], b"mine") == "ü b.jpg"
    assert home.store.read("new/a.jpg", most_bytes=9)[1] == b"other"
    with pytest.raises(Unavailable):
        home.store.add("new", ["a.jpg", "a-1.jpg"], b"third")
    assert paths(home.store) == ["new/a-1.jpg", "new/a.jpg", "ü b.jpg"]


def test_a_file_that_is_deleted_is_gone_and_deleting_it_again_is_of_no_effect(home: Home) -> None:
    home.outside.put("a/1.jpg", b"x")
    home.store.delete("a/1.jpg")
    home.store.delete("a/1.jpg")
    home.store.delete("never/was.jpg")
    assert paths(home.store) == []
    with pytest.raises(NotFound):
        home.store.stat("a/1.jpg")


def test_a_link_leads_to_the_bytes_as_they_are_to_be_shown_or_there_is_none(home: Home) -> None:
    content = picture("red")
    home.outside.put("a b/ü+%41.html", content)
    link = home.store.link("a b/ü+%41.html", SHOWN)
    if isinstance(home.store, ImageFolder):
        assert link is None
        return
    assert link is not None
    answer = httpx.get(link)
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == SHOWN.disposition


def test_a_home_that_is_away_is_unavailable_and_never_empty(home: Home) -> None:
    home.outside.put("a.jpg", b"x")
    home.store.check()
    home.take_away()  # type: ignore[operator]
    for call in (home.store.check, lambda: list(home.store.list()), lambda: home.store.add("", ["b.jpg"], b"y")):
        with pytest.raises(Unavailable):
            call()


def test_a_name_longer_than_the_home_takes_is_refused(home: Home) -> None:
    with pytest.raises((InvalidRequest, Unavailable)):
        home.store.add("/".join(["x" * 300] * 30), ["a.jpg"], b"y")
