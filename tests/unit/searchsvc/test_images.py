"""Images: taking them in, handing them out, deleting them."""

from __future__ import annotations

import asyncio
import io
import struct
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, FormData
from PIL import Image

from core.errors import CatalogUnavailable, ModelUnavailable
from core.schemas import ImageRecord, ImageState, SegmentMode
from tests.fakes import image_id_of, picture
from tests.unit.searchsvc.conftest import MakeWorld, World


def _names(world: World) -> set[str]:
    return {path.relative_to(world.images).as_posix() for path in world.images.rglob("*") if path.is_file()}


# --- upload


async def test_an_upload_is_stored_whole_announced_and_answered_with_its_address(world: World) -> None:
    content = picture("red")
    answer = await world.upload(content, "my picture.png", folder="holidays/2024")
    document = await answer.json()
    assert answer.status == 202
    assert document == {"image_id": image_id_of(content), "status_url": f"/api/v1/images/{image_id_of(content)}"}
    assert answer.headers["Location"] == document["status_url"]
    assert _names(world) == {"holidays/2024/my picture.png"}
    assert (world.images / "holidays/2024/my picture.png").read_bytes() == content
    assert world.catalog.noticed == ["holidays/2024/my picture.png"]


async def test_another_picture_of_the_same_name_is_stored_beside_the_first(world: World) -> None:
    first, second = picture("red"), picture("blue")
    await world.upload(first, "a.png")
    await world.upload(second, "a.png")
    assert _names(world) == {"a.png", f"a-{image_id_of(second)[:8]}.png"}
    assert (world.images / "a.png").read_bytes() == first


async def test_the_same_picture_of_the_same_name_is_stored_once(world: World) -> None:
    for _ in range(2):
        assert (await world.upload(picture("red"), "a.png")).status == 202
    assert _names(world) == {"a.png"}


async def test_bytes_that_the_catalog_knows_are_not_stored_again(world: World) -> None:
    image_id = await world.add(picture("red"), "first.png")
    answer = await world.upload(picture("red"), "second.png")
    assert (answer.status, (await answer.json())["image_id"]) == (202, image_id)
    assert _names(world) == {"first.png"}


async def test_bytes_that_are_known_but_whose_file_is_gone_are_stored_again(world: World) -> None:
    await world.add(picture("red"), "first.png")
    (world.images / "first.png").unlink()
    assert (await world.upload(picture("red"), "second.png")).status == 202
    assert _names(world) == {"second.png"}


async def test_bytes_that_are_known_but_whose_file_holds_others_by_now_are_stored_again(world: World) -> None:
    """What the catalog knows of a file that was just replaced is older than the file."""
    content = picture("red")
    await world.add(content, "first.png")
    for others in (picture("blue"), content[:-1] + b"?"):
        (world.images / "first.png").write_bytes(others)
        assert (await world.upload(content, "second.png")).status == 202
        assert (world.images / "second.png").read_bytes() == content
        (world.images / "second.png").unlink()


async def test_uploads_at_once_under_one_name_all_stay(world: World) -> None:
    contents = [picture("red", mark=n) for n in range(6)]
    answers = await asyncio.gather(*(world.upload(content, "a.png") for content in contents))
    assert {answer.status for answer in answers} == {202}
    assert {path.read_bytes() for path in world.images.iterdir()} == set(contents)


async def test_an_upload_says_that_it_is_one_of_many(world: World) -> None:
    for colour, backfill in (("red", "true"), ("green", "false")):
        assert (await world.upload(picture(colour), f"{colour}.png", backfill=backfill)).status == 202
    assert (world.catalog.noticed, world.catalog.backfilled) == (["red.png", "green.png"], ["red.png"])
    refused = await world.upload(picture("blue"), "c.png", backfill="perhaps")
    assert (refused.status, (await refused.json())["errors"][0]["field"]) == (422, "backfill")


async def test_states_of_many_images_and_paths_are_told_at_once(world: World) -> None:
    image_id = await world.add(picture("red"), "a/red.png")
    asked = {"image_ids": [image_id, "0" * 64], "paths": ["a/red.png", "none.png"]}
    answer = await world.client.post("/api/v1/image-states", json=asked)
    told = {"image_id": image_id, "state": "indexed", "reason": None, "detail": None}
    assert await answer.json() == {"images": [told], "paths": [{"path": "a/red.png", **told}]}
    for wrong in ({"image_ids": ["x"]}, {"image_ids": ["0" * 64] * 1001}, {"paths": [""]}, {"ids": []}):
        assert (await world.client.post("/api/v1/image-states", json=wrong)).status == 422


async def test_files_that_lie_there_are_noticed_as_a_backfill_with_a_key_where_writing_needs_one(make_world: MakeWorld) -> None:
    world = await make_world(api_keys=["a key of at least 24 characters"])
    asked = {"paths": ["a.png", "b/c.png", "../d.png", "a.png"]}
    assert (await world.client.post("/api/v1/image-notices", json=asked)).status == 401
    key = {"Authorization": "Bearer a key of at least 24 characters"}
    answer = await world.client.post("/api/v1/image-notices", json=asked, headers=key)
    assert (answer.status, await answer.json()) == (202, {"hints": 2})
    assert world.catalog.backfilled == ["a.png", "b/c.png"]
    assert (await world.client.post("/api/v1/image-notices", json={"paths": []}, headers=key)).status == 422


async def test_an_upload_survives_an_absent_watcher(world: World) -> None:
    world.catalog.away = CatalogUnavailable("the watcher does not answer")
    assert (await world.upload(picture("red"), "a.png")).status == 202
    assert _names(world) == {"a.png"}


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        (".hidden.jpg", "hidden.png"),
        ("日本語 1.png", "日本語 1.png"),
        ("page.html", "page.html.png"),
    ],
)
async def test_whatever_a_client_calls_its_picture_the_name_is_plain_and_fits(world: World, name: str, stored: str) -> None:
    assert (await world.upload(picture("red"), name)).status == 202
    assert _names(world) == {stored}


@pytest.mark.parametrize("folder", ["..", "a/../b", ".git", "a/.b", "a\0b", "x" * 300, "/".join("abcdefghijklmnopqrs"), "con"])
async def test_folders_outside_or_hidden_are_refused(world: World, folder: str) -> None:
    answer = await world.upload(picture("red"), folder=folder)
    assert answer.status == 422
    assert (await answer.json())["errors"][0]["field"] == "folder"
    assert list(world.images.iterdir()) == []


async def test_a_folder_that_links_outside_is_not_written_to(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (world.images / "link").symlink_to(outside)
    answer = await world.upload(picture("red"), folder="link")
    assert answer.status == 503
    assert list(outside.iterdir()) == []


def _bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in 100 bytes of header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "empty_file"),
        (b"this is text", 415, "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
        (picture("red", image_format="JPEG", size=(400, 400))[:-200], 422, "truncated"),
        (_bomb(), 422, "too_many_pixels"),
    ],
)
async def test_what_is_no_picture_is_refused_with_its_reason_and_leaves_nothing(
    world: World, content: bytes, status: int, code: str
) -> None:
    answer = await world.upload(content, "a.png")
    assert (answer.status, (await answer.json())["code"]) == (status, code)
    assert list(world.images.iterdir()) == []
    assert world.catalog.noticed == []


async def test_a_file_over_the_byte_limit_is_413_and_is_not_read_to_its_end(make_world: MakeWorld) -> None:
    world = await make_world(max_image_bytes=100_000)
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        yield b'--abc\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(4000):
            sent += 65_536
            yield b"x" * 65_536

    for path in ("/api/v1/images", "/api/v1/search-image"):
        sent = 0
        headers = {"Content-Type": "multipart/form-data; boundary=abc"}
        answer = await world.client.post(path, data=endless(), headers=headers)
        assert answer.status == 413
        assert (await answer.json(content_type="application/problem+json"))["code"] == "request_entity_too_large"
        assert sent < 50_000_000
    assert (await world.upload(b"x" * 3_000_000)).status == 413
    assert list(world.images.iterdir()) == []


@pytest.mark.parametrize("fields", [{}, {"folder": "a"}, {"colour": "red"}])
async def test_a_form_without_a_file_or_with_unknown_fields_is_422(world: World, fields: dict[str, str]) -> None:
    form = FormData(default_to_multipart=True)
    for name, value in {"folder": "a", **fields}.items():
        form.add_field(name, value)
    answer = await world.client.post("/api/v1/images", data=form)
    assert answer.status == 422
    if fields:
        assert (await world.upload(picture("red"), colour="red")).status == 422


async def test_two_files_or_a_field_twice_are_422(world: World) -> None:
    for name in ("file", "folder"):
        form = FormData(default_to_multipart=True)
        for _ in range(2):
            form.add_field(name, picture("red") if name == "file" else "x", filename="a.png" if name == "file" else None)
        assert (await world.client.post("/api/v1/images", data=form)).status == 422


async def test_more_uploads_at_once_than_allowed_are_refused_before_they_are_read(make_world: MakeWorld) -> None:
    world = await make_world(max_uploads=1)
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        yield b'--abc\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        begun.set()
        await release.wait()
        yield picture("red") + b"\r\n--abc--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=abc"}
    first = asyncio.ensure_future(world.client.post("/api/v1/images", data=slow(), headers=headers))
    await begun.wait()
    for _ in range(100):
        refused = await world.upload(picture("blue"), "b.png")
        if refused.status == 503:
            break
    assert (refused.status, (await refused.json())["code"]) == (503, "overloaded")
    release.set()
    assert (await first).status == 202
    assert (await world.upload(picture("blue"), "b.png")).status == 202


async def test_an_upload_that_stops_in_the_middle_is_given_up_and_leaves_nothing(make_world: MakeWorld) -> None:
    world = await make_world(receive_timeout_s=0.1, max_uploads=1)

    async def stalling() -> Any:
        yield b'--abc\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + b"x" * 1000
        await asyncio.sleep(1.5)
        yield b"\r\n--abc--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=abc"}
    assert (await world.client.post("/api/v1/images", data=stalling(), headers=headers)).status == 503
    assert list(world.images.iterdir()) == []
    assert (await world.upload(picture("blue"), "b.png")).status == 202


async def test_leftovers_of_a_killed_upload_are_removed_at_the_start(make_world: MakeWorld, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".upload-123.part").write_bytes(b"half")
    (tmp_path / "images" / ".other.part").write_bytes(b"not ours")
    world = await make_world()
    assert _names(world) == {".other.part"}


async def test_a_missing_watched_folder_is_not_made_anew(world: World) -> None:
    world.images.rmdir()
    assert (await world.upload(picture("red"), "a.png")).status == 503
    assert not world.images.exists()


async def test_a_place_that_cannot_be_written_to_is_503_and_leaves_nothing(world: World) -> None:
    (world.images / "sub").write_bytes(b"a file where the folder should be")
    answer = await world.upload(picture("red"), "a.png", folder="sub")
    assert (answer.status, (await answer.json())["code"]) == (503, "service_unavailable")
    assert _names(world) == {"sub"}


_FULL_DISK = """
import asyncio, pathlib, resource, sys
from concurrent.futures import ThreadPoolExecutor
from core.errors import Unavailable
from core.room import Rooms
from core.images.folder import ImageFolder
from searchsvc.originals import Originals
from searchsvc.uploads import Uploads
from tests.fakes import FakeCatalog

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # stands for the full disk: writing fails in the middle of the file
with ThreadPoolExecutor(1) as pool:
    ports = {"catalog": FakeCatalog(), "format_of": lambda _: "PNG", "rooms": Rooms({})}
    store = ImageFolder(pathlib.Path(sys.argv[1]))
    uploads = Uploads(store, originals=Originals(store, link_lifetime_s=None), **ports, decoding=pool, writing=pool)
    try:
        asyncio.run(uploads.add(b"x" * 100_000, offered_name="a.png", folder=None))
    except Unavailable as error:
        print("refused:", error)
"""


def test_a_disk_that_fills_up_is_503_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "refused: the picture cannot be stored" in done.stdout
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_shrinks_while_it_is_sent_breaks_the_answer_off(world: World) -> None:
    content = picture("red") + bytes(30_000_000)
    image_id = await world.add(content, "big.png")
    answer = await world.client.get(f"/api/v1/images/{image_id}/file")
    with (world.images / "big.png").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ClientPayloadError):
        await answer.read()


# --- state and file


async def test_the_state_of_an_image_comes_with_the_addresses_of_its_parts(world: World) -> None:
    image_id = await world.add(picture("red"), "a/red.png")
    document = await (await world.client.get(f"/api/v1/images/{image_id}")).json()
    assert document["state"] == "indexed"
    assert document["paths"] == ["a/red.png"]
    assert document["segments"] == 1
    assert document["reason"] is None
    for name in ("image_url", "thumbnail_url", "segments_url"):
        assert (await world.client.get(document[name])).status == 200


async def test_the_file_is_served_by_its_true_kind_and_cannot_run(world: World) -> None:
    content = picture("red", image_format="JPEG")
    image_id = await world.add(content, "looks like.html")
    answer = await world.client.get(f"/api/v1/images/{image_id}/file")
    assert await answer.read() == content
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["ETag"] == f'"{image_id}"'
    assert answer.headers["Content-Disposition"] == "inline; filename*=UTF-8''looks%20like.html"


async def test_a_file_that_the_caller_holds_is_304(world: World) -> None:
    image_id = await world.add(picture("red"), "red.png")
    several = f'"other", W/"{image_id}"'
    for etag, status in ((f'"{image_id}"', 304), (f'W/"{image_id}"', 304), (several, 304), ("*", 304), ('"other"', 200)):
        answer = await world.client.get(f"/api/v1/images/{image_id}/file", headers={"If-None-Match": etag})
        assert answer.status == status


async def test_a_file_that_the_caller_holds_since_its_last_change_is_304_unless_a_tag_says_otherwise(world: World) -> None:
    image_id = await world.add(picture("red"), "red.png")
    path = f"/api/v1/images/{image_id}/file"
    changed_at = (await world.client.get(path)).headers["Last-Modified"]
    for since, status in (
        (changed_at, 304),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 304),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
        (f"Thu, 01 Jan {'9' * 20} 00:00:00 GMT", 200),
        ("yesterday", 200),
    ):
        answer = await world.client.get(path, headers={"If-Modified-Since": since})
        assert answer.status == status, since
        assert answer.headers["ETag"] == f'"{image_id}"'
    both = {"If-Modified-Since": changed_at, "If-None-Match": '"other"'}
    assert (await world.client.get(path, headers=both)).status == 200


@pytest.mark.parametrize(
    ("wanted", "status", "start", "stop"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=10-", 206, 10, None),
        ("bytes=-5", 206, -5, None),
        ("bytes=0-999999", 206, 0, None),
        ("bytes=-999999", 206, 0, None),
        ("bytes=0-1,4-5", 200, 0, None),
        ("rubbish", 200, 0, None),
        ("bytes=5-2", 200, 0, None),
    ],
)
async def test_one_range_of_the_file_can_be_had(world: World, wanted: str, status: int, start: int, stop: int | None) -> None:
    content = picture("red")
    image_id = await world.add(content, "red.png")
    answer = await world.client.get(f"/api/v1/images/{image_id}/file", headers={"Range": wanted})
    assert answer.status == status
    assert await answer.read() == content[start:stop]
    if status == 206:
        first = start if start >= 0 else len(content) + start
        assert answer.headers["Content-Range"] == f"bytes {first}-{(stop or len(content)) - 1}/{len(content)}"


async def test_a_range_beyond_the_file_is_416_and_one_of_another_version_is_the_whole(world: World) -> None:
    content = picture("red")
    image_id = await world.add(content, "red.png")
    path = f"/api/v1/images/{image_id}/file"
    for wanted in ("bytes=999999-", "bytes=-0"):
        beyond = await world.client.get(path, headers={"Range": wanted})
        assert beyond.status == 416
        assert beyond.content_type == "application/problem+json"
        assert beyond.headers["Content-Range"] == f"bytes */{len(content)}"
    assert (await world.client.head(path, headers={"Range": "bytes=0-1"})).status == 200, "ranges are of GET"
    assert (await world.client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})).status == 200
    assert (await world.client.get(path, headers={"Range": "bytes=0-1", "If-Range": f'"{image_id}"'})).status == 206


async def test_head_tells_the_size_and_sends_nothing(world: World) -> None:
    content = picture("red")
    image_id = await world.add(content, "red.png")
    answer = await world.client.head(f"/api/v1/images/{image_id}/file")
    assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(content)))
    assert await answer.read() == b""


async def test_a_vanished_or_replaced_file_is_404_and_another_path_takes_its_place(world: World) -> None:
    content = picture("red")
    image_id = await world.add(content, "a.png", "b.png")
    (world.images / "a.png").write_bytes(b"other bytes")
    assert await (await world.client.get(f"/api/v1/images/{image_id}/file")).read() == content
    (world.images / "b.png").unlink()
    assert (await world.client.get(f"/api/v1/images/{image_id}/file")).status == 404


async def test_no_path_leads_out_of_the_folder(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    content = picture("red")
    outside.write_bytes(content)
    (world.images / "link.png").symlink_to(outside)
    for path in ("../secret.png", str(outside), "link.png"):
        record = ImageRecord(
            image_id="2" * 64, state=ImageState.INDEXED, paths=(path,), bytes=len(content), noticed_at=datetime.now(UTC)
        )
        world.catalog.records[record.image_id] = record
        assert (await world.client.get(f"/api/v1/images/{record.image_id}/file")).status == 404
        assert (await world.client.get(f"/api/v1/images/{record.image_id}/thumbnail")).status == 404


# --- thumbnails


async def test_a_thumbnail_is_small_upright_and_kept(world: World) -> None:
    image = Image.new("RGB", (1200, 800), (200, 10, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    written = io.BytesIO()
    image.save(written, "JPEG", exif=exif)
    image_id = await world.add(written.getvalue(), "big.jpg")
    answer = await world.client.get(f"/api/v1/images/{image_id}/thumbnail?size=128")
    assert answer.content_type == "image/webp"
    assert "immutable" in answer.headers["Cache-Control"]
    small = Image.open(io.BytesIO(await answer.read()))
    assert small.format == "WEBP"
    assert max(small.size) == 128
    assert small.width < small.height
    kept = list((world.settings.data_dir / "thumbnails").rglob("*"))
    assert [path.name for path in kept if path.is_file()] == [f"{image_id}-128.webp"]
    held = await world.client.get(
        f"/api/v1/images/{image_id}/thumbnail?size=128", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert held.status == 304


@pytest.mark.parametrize("size", ["0", "100", "-256", "1e9", "", "256.0", "99999999999"])
async def test_thumbnails_of_other_sizes_are_422(world: World, size: str) -> None:
    image_id = await world.add(picture("red"), "red.png")
    answer = await world.client.get(f"/api/v1/images/{image_id}/thumbnail", params={"size": size})
    assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, "size")


async def test_a_thumbnail_asked_for_many_times_at_once_comes_each_time(world: World) -> None:
    image_id = await world.add(picture("red", size=(900, 900)), "red.png")
    answers = await asyncio.gather(*(world.client.get(f"/api/v1/images/{image_id}/thumbnail") for _ in range(20)))
    bodies = {await answer.read() for answer in answers}
    assert len(bodies) == 1


async def test_a_file_that_is_no_picture_has_no_thumbnail(world: World) -> None:
    image_id = await world.add(picture("red"), "red.png")
    (world.images / "red.png").write_bytes(b"overwritten")
    assert (await world.client.get(f"/api/v1/images/{image_id}/thumbnail")).status == 404


async def test_a_file_that_was_replaced_lends_its_thumbnail_to_nobody(world: World) -> None:
    image_id = await world.add(picture("red"), "a.png", "b.png")
    (world.images / "a.png").write_bytes(picture("blue"))  # which nobody has noticed yet
    answer = await world.client.get(f"/api/v1/images/{image_id}/thumbnail")
    red, _, blue = Image.open(io.BytesIO(await answer.read())).resize((1, 1)).getpixel((0, 0))
    assert red > blue
    (world.images / "b.png").write_bytes(picture("blue"))
    assert (await world.client.get(f"/api/v1/images/{image_id}/thumbnail?size=512")).status == 404


# --- segments


async def test_segments_and_their_masks_can_be_had_while_the_model_service_is_away(world: World) -> None:
    image_id = await world.add(picture("red", size=(40, 20)), "red.png")
    world.embedder.away = ModelUnavailable("away")
    document = await (await world.client.get(f"/api/v1/images/{image_id}/segments")).json()
    (segment,) = document["segments"]
    assert segment["label"] == "half"
    answer = await world.client.get(segment["mask_url"])
    assert (answer.status, answer.content_type) == (200, "image/png"), await answer.text()
    mask = Image.open(io.BytesIO(await answer.read()))
    assert (mask.mode, mask.size) == ("LA", (40, 20))
    for channel in mask.split():
        assert channel.getpixel((5, 10)) == 255
        assert channel.getpixel((35, 10)) == 0


async def test_an_image_that_is_not_indexed_has_no_segments_and_an_unknown_one_is_404(world: World) -> None:
    record = ImageRecord(image_id="3" * 64, state=ImageState.PENDING, paths=("a.png",), bytes=1, noticed_at=datetime.now(UTC))
    world.catalog.records[record.image_id] = record
    assert (await (await world.client.get(f"/api/v1/images/{'3' * 64}/segments")).json())["segments"] == []
    assert (await world.client.get(f"/api/v1/images/{'4' * 64}/segments")).status == 404
    image_id = await world.add(picture("red"), "red.png")
    for n in ("1", "999999", "-1", "x", "0.0", "00000000000000000000"):
        assert (await world.client.get(f"/api/v1/images/{image_id}/segments/{n}/mask")).status == 404


async def test_an_image_can_be_segmented_again(world: World) -> None:
    image_id = await world.add(picture("red"), "red.png")
    answer = await world.client.post(f"/api/v1/images/{image_id}/segment", json={"mode": "full"})
    document = await answer.json()
    assert answer.status == 200
    assert document["segments"][0]["label"] == "whole"
    assert world.catalog.resegmented == [(image_id, SegmentMode.FULL)]


@pytest.mark.parametrize("body", [{}, {"mode": "standard"}, {"mode": "none"}, {"mode": 1}, {"mode": "full", "x": 1}])
async def test_other_ways_to_segment_are_422(world: World, body: dict[str, Any]) -> None:
    image_id = await world.add(picture("red"), "red.png")
    assert (await world.client.post(f"/api/v1/images/{image_id}/segment", json=body)).status == 422


# --- deletion and ids


async def test_a_deleted_image_is_gone_with_its_thumbnails(world: World) -> None:
    image_id = await world.add(picture("red"), "red.png")
    image = f"/api/v1/images/{image_id}"
    assert (await world.client.get(f"{image}/thumbnail")).status == 200
    answer = await world.client.delete(image)
    assert (answer.status, await answer.read()) == (204, b"")
    assert list((world.settings.data_dir / "thumbnails").rglob("*.webp")) == []
    assert (await world.client.delete(image)).status == 404
    assert (await world.client.get(image)).status == 404


@pytest.mark.parametrize("image_id", ["x", "0" * 63, "0" * 65, "A" * 64, "..", "%2e%2e%2fetc", "0" * 64 + "%0a", "%00"])
async def test_what_is_no_image_id_is_404_everywhere(world: World, image_id: str) -> None:
    from yarl import URL

    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/file"),
        ("GET", "/thumbnail"),
        ("GET", "/segments"),
        ("GET", "/segments/0/mask"),
    ):
        url = URL(f"/api/v1/images/{image_id}{path}", encoded=True)
        answer = await world.client.request(method, url)
        assert answer.status in {404, 405}
        assert answer.content_type == "application/problem+json"
