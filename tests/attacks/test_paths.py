"""Paths that lead out of the folder: in addresses, in names of uploads, through links, and by swapping a name while it is opened."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Forbidden, NotFound
from core.images.beneath import open_file
from core.images.folder import ImageFolder
from searchsvc.naming import file_name, folder_path
from tests.attacks.services import SERVICES, attacked
from tests.fakes import index, picture
from tests.unit.searchsvc.conftest import World

SECRET = b"what nobody may read"

_UP = (
    "..", "%2e%2e", "%2E%2E", ".%2e", "%252e%252e", "..%00", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "..;", "%uff0e%uff0e",
    "%ef%bc%8e%ef%bc%8e", "....",
)  # fmt: skip
_BETWEEN = ("/", "%2f", "%2F", "%5c", "\\", "%252f", "%c0%af", "//", "/./", "%ef%bc%8f", "%00/")


def _climbs(target: Path) -> Iterator[str]:
    """Spellings of the way to a file that really lies there."""
    away = str(target).lstrip("/")
    for up in _UP:
        for between in _BETWEEN:
            yield between.join([up] * 12 + away.split("/"))
    yield from (str(target), f"/{target}", f"file://{target}", f"%2f{away.replace('/', '%2f')}")
    yield from (
        f"C:\\{away}",
        f"\\\\?\\{away}",
        f"c:/{away}",
        f"main.js/../../../../../../{away}",
        f"main.js%00{target}",
        f"{target}%00.js",
    )
    yield from ("~", "~root/.bashrc", "%00", "a" * 5000, ".", "%2e")


@pytest.mark.parametrize("name", SERVICES)
async def test_no_address_of_any_route_reads_or_removes_a_file_elsewhere(name: str, tmp_path: Path) -> None:
    """Every part that may vary in every route of the router, as raw bytes, since clients tidy addresses up."""
    secret = tmp_path / "secret.txt"
    secret.write_bytes(SECRET)
    async with attacked(name, tmp_path) as service:
        varying = [
            (route.method, route.resource.canonical)
            for route in service.app.router.routes()
            if route.resource is not None and "{" in route.resource.canonical and route.method != "HEAD"
        ]
        assert varying or name == "model_service"
        before, climbs = service.state(), list(_climbs(secret))
        for method, path in varying:
            prefix, _, rest = path.partition("{")
            after = rest.partition("}")[2].replace("{n}", "0")
            for climb in climbs:
                request = f"{method} {prefix}{climb}{after} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                answer = await service.raw(request.encode("latin-1"))
                assert SECRET not in answer, (method, path, climb)
                status = int(answer.split()[1])
                assert 400 <= status < 500, (method, path, climb, status)
        assert service.state() == before
        assert secret.read_bytes() == SECRET


@pytest.mark.parametrize("place", ["query", "header", "body"])
async def test_no_other_part_of_a_request_names_a_file(place: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_bytes(SECRET)
    async with attacked("searchsvc", tmp_path) as service:
        for method, path in service.routes():
            if path.endswith("events"):
                continue
            options = {
                "query": {"params": dict.fromkeys(("file", "path", "name", "size", "folder", "n", "format"), str(secret))},
                "header": {
                    "headers": {"X-Sendfile": str(secret), "X-Original-URL": str(secret), "X-Rewrite-URL": "/api/v1/feedback"}
                },
                "body": {"data": str(secret).encode()},
            }[place]
            assert SECRET not in (await service.ask(method, path, **options))[2]


HOSTILE_NAMES = [
    "../../evil.png", "..\\..\\evil.png", "/etc/evil.png", "C:\\Windows\\evil.png", "\\\\server\\share\\evil.png", "%2e%2e%2fevil.png",
    "..%2fevil.png", "evil\0.png", "evil.png\0.html", ".htaccess", "...png", "..", ".", "", " ", "~", "con.png", "nul", "a" * 400 + ".png",
    "é" * 200 + ".png", "evil\r\nX: 1.png", "\u202egnp.exe", "evil.png/", "evil.png\\", "a/b/../../../evil.png", "./evil.png",
    "\uff0e\uff0e\uff0fevil.png", "-rf.png", "evil.png;.html", "evil.php.png", "$(id).png", "`id`.png", "|id.png", "evil.png:stream",
    "\u2215evil.png", "\ufeff.png", "evil\x1b[31m.png", "\udce4.png",
]  # fmt: skip


@pytest.mark.parametrize("offered", HOSTILE_NAMES, ids=ascii)
def test_whatever_an_upload_is_called_its_name_is_one_plain_part(offered: str) -> None:
    name = file_name(offered, "PNG")
    assert name == Path(name).name
    assert "\\" not in name
    assert not name.startswith((".", "~"))
    assert name.endswith(".png")
    assert name not in {"", ".", ".."}
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name)
    assert len(os.fsencode(name)) <= 255


def _form(content: bytes, name: str, folder: str) -> tuple[bytes, dict[str, str]]:
    """By hand: clients refuse to send such names."""
    head = f'--xyz\r\nContent-Disposition: form-data; name="folder"\r\n\r\n{folder}\r\n'
    head += f'--xyz\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--xyz--\r\n", {"Content-Type": "multipart/form-data; boundary=xyz"}


@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")  # which is what they are
@pytest.mark.parametrize("offered", [name for name in HOSTILE_NAMES if name not in {"", " ", "\udce4.png"}], ids=ascii)
async def test_no_upload_lands_outside_whatever_it_or_its_folder_is_called(world: World, offered: str, tmp_path: Path) -> None:
    inside = world.images.resolve()
    outside_before = sorted(
        path for path in tmp_path.rglob("*") if not path.is_relative_to(world.images) and "state" not in path.parts
    )
    for folder in (offered, ""):
        content, headers = _form(picture("red", mark=len(folder)), offered, folder)
        answer = await world.client.post("/api/v1/images", data=content, headers=headers)
        assert answer.status in {202, 400, 422}, await answer.text()
    for path in world.images.rglob("*"):
        assert path.resolve().is_relative_to(inside)
    outside = sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(world.images) and "state" not in path.parts)
    assert outside == outside_before


def test_a_folders_name_is_taken_as_it_is_or_refused() -> None:
    seed = time.time_ns()
    print("seed", seed)
    chosen = random.Random(seed)
    pieces = ["..", ".", "/", "\\", "a", "é", "\0", "%2e", "~", " ", "con", "\n", "\u202e", ":", "a" * 100, "\uff0e"]
    for _ in range(3000):
        offered = "".join(chosen.choices(pieces, k=chosen.randint(1, 8)))
        try:
            taken = folder_path(offered)
        except Exception as error:  # noqa: BLE001 - of one kind alone
            assert type(error).__name__ == "InvalidRequest", offered  # noqa: PT017
            continue
        parts = taken.split("/") if taken else []
        assert not {"", ".", ".."} & set(parts), offered
        assert not any(part.startswith((".", "~")) or "\\" in part for part in parts), offered


# --- links ------------------------------------------------------------------------------------------------------------


async def test_links_that_lead_out_are_not_read_through(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    content = picture("blue")
    (outside / "secret.png").write_bytes(content)
    (world.images / "file.png").symlink_to(outside / "secret.png")
    (world.images / "folder").symlink_to(outside)
    (world.images / "again.png").symlink_to("file.png")
    (world.images / "loop.png").symlink_to("loop.png")
    (world.images / "up").symlink_to("..")
    (world.images / "proc.png").symlink_to("/proc/self/environ")
    os.mkfifo(world.images / "pipe.png")
    for path in (
        "file.png",
        "folder/secret.png",
        "again.png",
        "loop.png",
        "up/elsewhere/secret.png",
        "proc.png",
        "pipe.png",
        "up",
        ".",
    ):
        image_id = await index(world.embedder, world.vectors, world.catalog, content, path)
        for what in ("file", "thumbnail"):
            answer = await world.client.get(f"/api/v1/images/{image_id}/{what}")
            assert answer.status == 404, (path, what)
        found = await world.client.post("/api/v1/search-image", json={"image_id": image_id})
        assert found.status in {200, 404, 409}
    (world.images / "inside.png").write_bytes(picture("red"))
    (world.images / "link.png").symlink_to("inside.png")
    inside = await index(world.embedder, world.vectors, world.catalog, picture("red"), "link.png")
    assert (await world.client.get(f"/api/v1/images/{inside}/file")).status == 200, "links within the folder are followed"


async def test_what_is_no_file_is_closed_again(world: World) -> None:
    (world.images / "folder.png").mkdir()
    image_id = await index(world.embedder, world.vectors, world.catalog, picture("red"), "folder.png")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        assert (await world.client.get(f"/api/v1/images/{image_id}/file")).status == 404
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 10


async def test_an_upload_makes_nothing_beyond_a_link_that_leads_out(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (world.images / "link").symlink_to(outside)
    (world.images / "broken").symlink_to(outside / "not there yet")
    for folder in ("link", "link/new", "link/new/deeper", "broken", "broken/new"):
        assert (await world.upload(picture("red"), folder=folder)).status in {422, 503}
    assert list(outside.iterdir()) == []
    (world.images / "taken.png").symlink_to(outside / "planted.png")
    assert (await world.upload(picture("red"), "taken.png")).status == 202, "under another name"
    assert list(outside.iterdir()) == []


class _Swapping:
    """Changes what a name stands for, as fast as it can, for as long as the context lasts."""

    def __init__(self, name: Path, *targets: Path) -> None:
        self._name, self._targets = name, targets
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._swap, daemon=True)
        self.swaps = 0

    def __enter__(self) -> _Swapping:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def _swap(self) -> None:
        made = self._name.with_name(".swapped")
        while not self._ended.is_set():
            for target in self._targets:
                made.unlink(missing_ok=True)
                if target.is_dir() or target.name.startswith("outside"):
                    made.symlink_to(target)
                else:
                    made.hardlink_to(target)
                made.replace(self._name)
                self.swaps += 1


@pytest.mark.parametrize("times", [2000, pytest.param(200_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_a_name_that_becomes_a_link_while_it_is_opened_is_not_followed_out(tmp_path: Path, times: int) -> None:
    root = tmp_path / "images"
    root.mkdir()
    good, outside = root / "good.png", tmp_path / "outside.png"
    good.write_bytes(b"good")
    outside.write_bytes(SECRET)
    folder, seen = ImageFolder(root), set()
    with _Swapping(root / "name.png", good, outside) as swapping:
        for _ in range(times):
            try:
                with folder.open("name.png") as opened:
                    seen.add(opened.file.read())
            except (NotFound, Forbidden):
                seen.add(b"")
    print("swaps", swapping.swaps)
    assert SECRET not in seen
    assert b"good" in seen


@pytest.mark.parametrize("times", [2000, pytest.param(200_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_a_folder_that_becomes_a_link_while_it_is_gone_through_is_not_followed_out(tmp_path: Path, times: int) -> None:
    root, within, outside = tmp_path / "images", tmp_path / "images" / "real", tmp_path / "outside"
    for made, content in ((within, b"good"), (outside, SECRET)):
        made.mkdir(parents=True)
        (made / "x.png").write_bytes(content)
    seen = set()
    with _Swapping(root / "sub", within, outside) as swapping:
        for _ in range(times):
            try:
                descriptor = open_file(root, "sub/x.png")
            except OSError:
                continue
            with os.fdopen(descriptor, "rb") as file:
                seen.add(file.read())
    print("swaps", swapping.swaps)
    assert seen == {b"good"}
