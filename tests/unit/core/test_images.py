"""Signed addresses, places in buckets, listings past odd names, and what is kept of a bucket's pictures."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx
import pytest

from core.errors import ImageSearchError, NotFound, Unavailable
from core.file_cache import FileCache
from core.images import bucket as buckets
from core.images import listing
from core.images.calls import Calls
from core.images.places import BucketPlace, keys_of
from core.images.settings import ImageSettings
from core.images.signing import Keys, signed
from core.ports import ShownAs
from tests.buckets import KEYS, Bucket, FakeS3

_AT = datetime(2013, 5, 24, tzinfo=UTC)


@pytest.fixture(scope="module")
def service() -> Iterator[FakeS3]:
    with FakeS3() as service:
        yield service


@pytest.fixture
def bucket(service: FakeS3, request: pytest.FixtureRequest) -> Bucket:
    return service.bucket(f"b{abs(hash(request.node.nodeid))}", "my photos")


# --- signing


def test_a_signature_is_the_one_that_amazon_documents() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html"""
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
    address = signed("GET", "https://examplebucket.s3.amazonaws.com/test.txt", {}, keys, lifetime_s=86_400, now=_AT)
    assert address.endswith("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


@pytest.mark.parametrize("path", ["a.jpg", "a b/ü+%41&=#?.jpg", "~1|$'()*!.png", "😀/é.jpg"])
@pytest.mark.parametrize("token", [None, "a/token+with=signs"])
def test_links_are_signed_as_amazons_own_library_signs_them(
    path: str, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = pytest.importorskip("botocore.auth", reason="comes with moto")
    request_of = pytest.importorskip("botocore.awsrequest").AWSRequest
    credentials = pytest.importorskip("botocore.credentials").Credentials(KEYS.access_key_id, KEYS.secret_access_key, token)
    place = BucketPlace("pictures", "my photos", "http://127.0.0.1:9000", "eu-west-1")
    query = {"response-content-type": "image/png", "response-content-disposition": "inline; filename*=UTF-8''%C3%BC%20b.png"}
    keys = Keys(KEYS.access_key_id, KEYS.secret_access_key, "eu-west-1", token)
    ours = httpx.URL(signed("GET", place.address(path), query, keys, lifetime_s=300, now=_AT))
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: _AT.replace(tzinfo=None), raising=False)
    request = request_of("GET", place.address(path), params=query)
    auth.S3SigV4QueryAuth(credentials, "s3", "eu-west-1", expires=300).add_auth(request)
    theirs = httpx.URL(request.url)
    if theirs.params["X-Amz-Date"] != ours.params["X-Amz-Date"]:
        pytest.skip("this release of botocore asks another clock")
    assert dict(ours.params) == dict(theirs.params)


def test_keys_show_in_no_text_of_them() -> None:
    assert KEYS.secret_access_key not in repr(KEYS)
    assert "token" not in repr(Keys("a", "b", "c", "a token"))


# --- places


@pytest.mark.parametrize(
    ("url", "prefix"),
    [("s3://pictures", ""), ("s3://pictures/", ""), ("s3://my.pictures-1/a b/c/", "a b/c"), ("s3://pictures//a", "a")],
)
def test_a_place_is_a_bucket_and_the_beginning_of_names(url: str, prefix: str) -> None:
    place = BucketPlace.of(url, environment={})
    assert place.prefix == prefix
    assert place.path(place.key("x/y.jpg")) == "x/y.jpg"
    assert place.endpoint == "https://s3.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    "url",
    ["pictures", "s3:/pictures", "s3://", "s3://P", "s3://pictures/a/../b", "s3://pictures/a//b", "https://x/y"],
)
def test_what_is_no_place_is_said_at_the_start(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="s3://bucket"):
        BucketPlace.of(url)
    monkeypatch.setenv("IMAGES_URL", url)
    with pytest.raises(ValueError, match="s3://bucket"):
        ImageSettings()


def test_names_of_a_sibling_prefix_are_not_ours() -> None:
    place = BucketPlace.of("s3://pictures/a", environment={})
    assert [place.path(key) for key in ("a/x.jpg", "ab/x.jpg", "a", "x.jpg")] == ["x.jpg", None, None, None]


def test_the_service_is_found_where_the_settings_or_the_environment_name_it() -> None:
    told = {"AWS_ENDPOINT_URL_S3": "http://s3:1", "AWS_ENDPOINT_URL": "http://aws:2", "AWS_REGION": "eu-west-3"}
    assert BucketPlace.of("s3://abc", endpoint="http://mine:9/", environment=told).endpoint == "http://mine:9"
    assert BucketPlace.of("s3://abc", environment=told).endpoint == "http://s3:1"
    assert (
        BucketPlace.of("s3://abc", environment={"AWS_DEFAULT_REGION": "eu-west-3"}).endpoint
        == "https://s3.eu-west-3.amazonaws.com"
    )
    assert keys_of(BucketPlace.of("s3://abc", environment=told), {"AWS_ACCESS_KEY_ID": "a"}) is None


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("https://S3.Example.org:443/", "https://s3.example.org"),
        ("HTTP://MinIO:80", "http://minio"),
        ("http://minio:443", "http://minio:443"),
        ("https://proxy.example.org:8443/MinIO/", "https://proxy.example.org:8443/MinIO"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://[FE80::1]:9000", "http://[fe80::1]:9000"),
    ],
)
def test_a_service_is_asked_and_signed_for_under_the_one_name_that_goes_over_the_wire(given: str, asked: str) -> None:
    place = BucketPlace.of("s3://pictures", endpoint=given)
    assert place.endpoint == asked
    link = signed("GET", place.address("a.jpg"), {}, KEYS, lifetime_s=60, now=_AT)
    sent = httpx.Request("GET", link)
    assert sent.headers["Host"] == urlsplit(link).netloc
    assert str(sent.url) == link


@pytest.mark.parametrize(
    "given", ["minio:9000", "minio", "ftp://minio", "http://", "http://minio:port", "http://key@minio", "http://minio/?a=b"]
)
def test_an_address_of_no_service_is_said_at_the_start(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES_URL", "s3://pictures")
    monkeypatch.setenv("IMAGES_S3_ENDPOINT", given)
    with pytest.raises(ValueError):  # noqa: PT011 - some of them Python's own
        ImageSettings()


def test_without_obstore_it_is_said_how_it_is_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "find_spec", lambda name: None if name == "obstore" else util.find_spec(name))
    with pytest.raises(ImageSearchError, match=r"pip install '\.\[s3\]'"):
        buckets.ImageBucket(BucketPlace.of("s3://abc"), FileCache(tmp_path, max_bytes=2**20), keys=KEYS)


def test_a_folder_imports_nothing_that_a_bucket_takes() -> None:
    program = "import sys, searchsvc.app, watcher.app; print(sorted({'obstore', 'core.images.bucket'} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True).stdout
    assert told.strip() == "[]"


# --- listing


def test_names_that_nobody_could_open_end_no_listing(bucket: Bucket, tmp_path: Path) -> None:
    good = [f"{folder}/{number:03}.jpg" for folder in ("a", "m", "z") for number in range(400)]
    bucket.fill(dict.fromkeys(good, b"x"))
    bucket.fill(dict.fromkeys(["a//b.jpg", "m/../up.jpg", "m/./x.jpg", "m/tab\t.jpg", "z/..", "/abs.jpg", "a+b%41 ü.jpg"], b"x"))
    store = bucket.opened(tmp_path)
    assert [file.path for page in store.list() for file in page] == sorted([*good, "a+b%41 ü.jpg"])
    assert [file.path for page in store.list("m", after="m/200.jpg") for file in page] == [
        name for name in good if name > "m/200.jpg" and name < "n"
    ]
    one = next(file for page in store.list("z") for file in page)
    assert one == store.stat("z/000.jpg")


@pytest.mark.parametrize("odd", [[], ["000//odd.jpg"]])
@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_listing_that_breaks_off_is_no_shorter_one(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: list[str], status: int
) -> None:
    monkeypatch.setattr(buckets, "_PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(listing, "_PAUSES_S", (0.01, 0.01))
    bucket.fill(dict.fromkeys([*odd, *(f"{number:04}.jpg" for number in range(2500))], b"x"))
    pages = bucket.opened(tmp_path).list()
    assert len(next(pages)) <= 1000
    bucket.service.refusing = status
    try:
        with pytest.raises(Unavailable):
            list(pages)
    finally:
        bucket.service.refusing = None


def test_keys_of_a_role_list_no_bucket_of_such_names_and_sign_no_links(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key_id)  # which obstore finds by itself, as it would those of a role
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_access_key)
    bucket.put("a.jpg", b"x")
    store = bucket.opened(tmp_path, keys=None)
    assert [file.path for page in store.list() for file in page] == ["a.jpg"]
    assert store.link("a.jpg", ShownAs("image/png", "inline", 60)) is None
    bucket.fill({"a//b.jpg": b"x"})
    with pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID"):
        list(store.list())


# --- reading


def test_an_object_that_is_replaced_between_two_looks_is_never_mixed(bucket: Bucket, tmp_path: Path) -> None:
    store = bucket.opened(tmp_path)
    contents = [bytes([n]) * 200_000 for n in range(8)]
    bucket.put("x.jpg", contents[0])
    with ThreadPoolExecutor(1) as other:
        putting = other.submit(lambda: [bucket.put("x.jpg", content) for content in contents * 3])
        seen = 0
        while not putting.done():
            try:
                file, content = store.read("x.jpg", most_bytes=10**6)
                with store.open("x.jpg") as opened:
                    assert opened.file.read() in contents
            except NotFound:  # it was just replaced
                continue
            assert len(content) == file.size
            assert content in contents
            seen += 1
    print("seen", seen)
    assert store.read("x.jpg", most_bytes=10**6)[1] == contents[-1]


def test_what_was_read_is_not_fetched_again_until_it_changes(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("x.jpg", b"one")
    gets = lambda: [method for method, _ in bucket.service.requests].count("GET")  # noqa: E731
    before = gets()
    for opened in (bucket.opened(tmp_path), bucket.opened(tmp_path)):
        assert opened.read("x.jpg", most_bytes=10)[1] == b"one"
        opened.open("x.jpg").file.close()
    assert gets() - before == 1
    bucket.put("x.jpg", b"two")
    assert bucket.opened(tmp_path).read("x.jpg", most_bytes=10)[1] == b"two"
    assert gets() - before == 2


def test_a_file_that_was_cut_short_on_the_disk_is_fetched_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("x.jpg", b"whole")
    store = bucket.opened(tmp_path)
    store.read("x.jpg", most_bytes=10)
    (kept,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept.write_bytes(b"wh")
    with store.open("x.jpg") as opened:
        assert opened.file.read() == b"whole"
    kept.write_bytes(b"")
    assert store.read("x.jpg", most_bytes=10)[1] == b"whole"


def test_what_another_process_clears_away_at_once_is_opened_all_the_same(bucket: Bucket, tmp_path: Path) -> None:
    """Its bound is smaller, or it has much to keep."""
    content = b"\xff\xd8\xff" + bytes(100_000)
    bucket.put("x.jpg", content)

    class Cleared(FileCache):
        def keep_open(self, name: str, content: bytes) -> BinaryIO | None:
            file = super().keep_open(name, content)
            self.forget(name)
            return file

    store = buckets.ImageBucket(bucket.place, Cleared(tmp_path, max_bytes=2**20), keys=KEYS)
    for _ in range(2):
        with store.open("x.jpg") as opened:
            assert (opened.size, opened.first_bytes[:3]) == (len(content), content[:3])
            assert opened.file.read() == content
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_cache_without_room_fetches_each_time_and_opens_nothing(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("x.jpg", b"one")
    blocked = tmp_path / "a file where the folder should be"
    blocked.write_bytes(b"")
    store = bucket.opened(blocked)
    assert store.read("x.jpg", most_bytes=10)[1] == b"one"
    with pytest.raises(Unavailable, match="no room"):
        store.open("x.jpg")


def test_a_service_that_takes_calls_and_never_answers_is_away_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="needs the extra `s3`")
    monkeypatch.setattr(buckets, "_STALLED_AFTER_S", 0.5)
    monkeypatch.setattr(buckets, "_RETRYING_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = BucketPlace.of("s3://pictures", endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        store = buckets.ImageBucket(place, FileCache(tmp_path, max_bytes=2**20), keys=KEYS)
        for call in (store.check, lambda: store.stat("x.jpg"), lambda: store.add("", ["x.jpg"], b"x")):
            since = time.monotonic()
            with pytest.raises(Unavailable):
                call()
            assert time.monotonic() - since < 15


def test_keys_that_may_not_write_are_the_services_trouble_and_not_the_callers(bucket: Bucket, tmp_path: Path) -> None:
    bucket.service.refusing = 403
    try:
        with pytest.raises(Unavailable, match="takes no pictures"):
            bucket.opened(tmp_path).add("", ["y.jpg"], b"y")
    finally:
        bucket.service.refusing = None


def test_errors_hold_no_address_and_no_key(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("x.jpg", b"one")
    store = bucket.opened(tmp_path)
    told: list[str] = []
    for status in (400, 401, 403, 404, 409, 500, 503):
        bucket.service.refusing = status
        try:
            calls: list[Any] = [
                store.check,
                lambda: store.stat("x.jpg"),
                lambda: store.read("x.jpg", most_bytes=9),
                lambda: store.add("", ["y.jpg"], b"y"),
            ]
            for call in calls:
                with pytest.raises(ImageSearchError) as refused:
                    call()
                told.append(str(refused.value))
        finally:
            bucket.service.refusing = None
    assert not [text for text in told if "127.0.0.1" in text or KEYS.access_key_id in text or bucket.place.bucket in text]


# --- keeping

_KEEPER = """
import random, sys
from pathlib import Path
from core.file_cache import FileCache
rng = random.Random(int(sys.argv[2]))
cache = FileCache(Path(sys.argv[1]), max_bytes=400_000)
print("ready", flush=True)
while True:
    name = f"{rng.randrange(60):02}"
    kept = cache.get(name)
    if kept is not None and (len(set(kept)) != 1 or len(kept) != 10_000):
        print("torn", name, len(kept), flush=True)
    if kept is None:
        cache.keep(name, bytes([int(name)]) * 10_000)
"""


@pytest.mark.parametrize("rounds", [2, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
def test_several_processes_that_are_killed_keep_whole_files_within_the_bound(tmp_path: Path, rounds: int) -> None:
    seed = random.SystemRandom().randrange(10**9)
    print("seed", seed)
    rng = random.Random(seed)
    cache = tmp_path / "cache"
    for number in range(rounds):
        command = [sys.executable, "-c", _KEEPER, str(cache)]
        keepers = [subprocess.Popen([*command, str(seed + number * 10 + n)], stdout=subprocess.PIPE, text=True) for n in range(3)]
        for keeper in keepers:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == "ready\n"
        until = time.monotonic() + rng.uniform(0.2, 0.6)
        most = 0
        while time.monotonic() < until:
            most = max(most, _held(cache))
        for keeper in keepers:
            os.kill(keeper.pid, signal.SIGKILL)
        told = [keeper.communicate(timeout=10)[0] for keeper in keepers]
        assert [text for text in told if "torn" in text] == []
        assert most < 400_000 * (1 + 3 / 16) + 3 * 10_000, most
    FileCache(cache, max_bytes=400_000).keep("zz", bytes(395_000))
    assert _held(cache) <= 400_000


def _held(cache: Path) -> int:
    total = 0
    for path in cache.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def test_a_backup_with_pictures_says_that_a_bucket_keeps_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "IMAGES_URL": "s3://pictures", "DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "standalone.backups", "take", str(tmp_path / "backup"), "--pictures"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "lie in a bucket" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


def test_a_listing_that_breaks_off_is_gone_on_with_where_it_was(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand pages one may always fail; from the beginning again, a large bucket would never be listed."""
    monkeypatch.setattr(buckets, "_PAUSES_S", (0.01, 0.01))
    names = [f"{n:05}.jpg" for n in range(2100)]
    bucket.fill(dict.fromkeys(names, b"x"))
    pages = bucket.opened(tmp_path).list()
    told = [file.path for file in next(pages)]
    bucket.service.refusals = 4  # of which obstore takes three for itself
    bucket.service.requests.clear()
    told += [file.path for page in pages for file in page]
    assert told == names
    assert len(bucket.service.requests) <= 4 + 3


def test_a_page_among_odd_names_is_asked_for_again_when_the_service_has_too_much_to_do(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_PAUSES_S", (0.01, 0.01))
    names = [f"{n:05}.jpg" for n in range(1100)]
    bucket.fill({**dict.fromkeys(names, b"x"), "0//odd.jpg": b"x"})
    pages = bucket.opened(tmp_path).list()
    told = [file.path for file in next(pages)]
    bucket.service.refusals = 2
    told += [file.path for page in pages for file in page]
    assert told == names


@pytest.mark.parametrize(
    "said",
    [
        b"<html><body>Please log in</body></html>",
        b"<ListBucketResult><IsTruncated>perhaps</IsTruncated></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>my photos/a.jpg</Key><Size>?</Size></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>my photos/a.jpg</Key>",
    ],
)
def test_what_is_no_listing_is_not_taken_for_that_of_an_emptier_bucket(bucket: Bucket, tmp_path: Path, said: bytes) -> None:
    bucket.fill({"a.jpg": b"x", "0//odd.jpg": b"x"})
    opened = bucket.opened(tmp_path)
    assert [file.path for page in opened.list() for file in page] == ["a.jpg"]
    bucket.service.saying = said
    try:
        for after in ("", "0//odd.jpg"):
            with pytest.raises(Unavailable):
                list(opened.list(after=after))
    finally:
        bucket.service.saying = None
        opened.close()


def test_a_moment_without_threads_is_an_outage_of_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answered() -> str:
        return "answered"

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    calls = Calls()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(Unavailable):
            calls.wait(answered)
    assert calls.wait(answered) == "answered"
    calls.close()
