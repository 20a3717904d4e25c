"""Tokens that are forged, changed, borrowed, or spent twice. What a single one does over HTTP: tests/unit/searchsvc/test_feedback.py."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.errors import Unauthorized
from searchsvc.app import create_app
from searchsvc.keys import Key, KeyRing
from searchsvc.tokens import MAX_TOKEN_CHARACTERS, ShownSearch, TokenSigner
from tests.fakes import FakeVectorStore, picture
from tests.unit.searchsvc.conftest import SECRET, MakeWorld, World

RATE = "/api/v1/create-feedback"
NOW = 1_800_000_000
IDS = ["a" * 64, "b" * 64]
SEARCH = ShownSearch(search_id="s", query={"text": "red"}, model="clip-1", shown=IDS, model_name="CLIP", scores=[0.5, 0.25])


def signer(*keys: Key, issuer: str = "imagesearch", audience: str = "imagesearch-feedback") -> TokenSigner:
    ring = KeyRing(keys or [Key(None, SECRET.encode())])
    return TokenSigner(ring, issuer=issuer, audience=audience, ttl_s=60, clock=lambda: NOW)


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def unb64(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(unb64(token.split(".")[1]))
    return claims


def forged(header: object, claims: object, key: bytes = SECRET.encode(), digest: str = "sha256") -> str:
    """Signed by hand, so that no library stands in the way. What is given as bytes goes in as it is."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signing = ".".join(map(b64, parts))
    return f"{signing}.{b64(hmac.digest(key, signing.encode(), digest))}"


HS256 = {"alg": "HS256", "typ": "JWT"}
PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzMzhnw777SdFbm4v5LlQ
hZjBIkryM3apB1/PFWl5PatTAlCyp38lWV9ywNZmv9vtcp3C/L9zbd7Vk3a/tbQA
r6KT/bAM8gxKQXMLkvLvGdCW7DNId12IXjm8hfGekJPrJGqS4Z85GvyIaLhcNhRY
jD0sG2LKgDESTA3IL2IZqW4ozQ8mrPUx/d007eVBRFApnsqDEB4z8s1OMPauvxKx
6hLDl5ATzb9O62tF1jy5EBlLyxnhFBCbAgBfagmyHnU4+XxTb7+KMwvUXI7J1QqN
TnPagPCbsd3XR8gc5LRqNpaZfHuCxzEYCKq3s69S5g2qHg5XSZG4gXUK7YDwInvw
SQIDAQAB
-----END PUBLIC KEY-----
"""


def is_refused(token: object, by: TokenSigner | None = None) -> bool:
    try:
        (by or signer()).verify(token)
    except Unauthorized:
        return True
    return False


@pytest.fixture(scope="module")
def token() -> str:
    issued = signer().issue(SEARCH)
    assert signer().verify(issued).ids == IDS
    assert not is_refused(
        forged(HS256, claims_of(issued))
    )  # what forges here forges well: only what is changed is refused for it
    return issued


# --- algorithms and keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "nOnE", "", "HS256 ", "hs256", "HS1", "null", None, 0, ["HS256"], {"HS256": 1}]
)
@pytest.mark.parametrize("signature", ["right", "none", "old"])
def test_an_algorithm_that_is_not_ours_is_refused_however_it_is_spelled(token: str, name: object, signature: str) -> None:
    header, claims = {"alg": name, "typ": "JWT"}, claims_of(token)
    right = forged(header, claims)
    signing, _, _ = right.rpartition(".")
    assert is_refused({"right": right, "none": f"{signing}.", "old": f"{signing}.{token.rpartition('.')[2]}"}[signature])


@pytest.mark.parametrize(("name", "digest"), [("HS384", "sha384"), ("HS512", "sha512")])
def test_a_stronger_algorithm_with_the_right_key_is_refused_and_under_the_name_of_ours_too(
    token: str, name: str, digest: str
) -> None:
    assert is_refused(forged({"alg": name, "typ": "JWT"}, claims_of(token), digest=digest))
    assert is_refused(forged(HS256, claims_of(token), digest=digest))


def test_a_signature_by_a_key_pair_is_refused_and_its_public_key_is_no_secret(token: str) -> None:
    public = PUBLIC_KEY.encode()
    for algorithm in ("RS256", "PS256", "ES256", "EdDSA"):
        signing, _, _ = forged({"alg": algorithm, "typ": "JWT"}, claims_of(token)).rpartition(".")
        assert is_refused(f"{signing}.{b64(bytes(range(256)))}")
        assert is_refused(forged({"alg": algorithm, "typ": "JWT"}, claims_of(token), key=public))
    for key in (public, public.strip(), b"", b"\0", SECRET.encode()[:-1], SECRET.encode() + b"0", SECRET.upper().encode()):
        assert is_refused(forged(HS256, claims_of(token), key=key)), key
    jwk = {"kty": "oct", "k": b64(b"mine" * 8)}
    assert is_refused(forged({**HS256, "jwk": jwk}, claims_of(token), key=b"mine" * 8))


@pytest.mark.parametrize(
    "extra",
    [
        {"jku": "http://127.0.0.1:1/keys"}, {"jwk": {"kty": "oct", "k": "AAAA"}}, {"x5u": "http://127.0.0.1:1/"}, {"x5c": ["AAAA"]},
        {"x5t": "AAAA"}, {"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"b64": True}, {"zip": "DEF"}, {"cty": "JWT"}, {"enc": "A128GCM"},
        {"typ": "JWE"}, {"typ": 5}, {"unknown": 1}, {"alg ": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_says_nothing_but_what_we_write_even_where_the_signature_is_right(token: str, extra: dict[str, Any]) -> None:
    assert is_refused(forged({**HS256, **extra}, claims_of(token)))


KIDS: list[object] = [
    "", "unknown", "2025 ", "../2025", "../../../../dev/null", "/dev/null", "file:///dev/null", "' OR '1'='1", "2025' UNION SELECT '",
    "2025\0", "2025\n", "k" * 257, "k" * 20_000, 2025, 2025.0, True, [], ["2025"], {"2025": 1}, "2\u0660\u0662\u0665", "|whoami", "${2025}",
]  # fmt: skip


@pytest.mark.parametrize("kid", KIDS, ids=lambda kid: repr(kid)[:24])
@pytest.mark.parametrize(
    "key", [SECRET.encode(), b"", b"\0" * 32, hashlib.sha256(b"").digest()], ids=["right", "empty", "zeros", "of nothing"]
)
def test_a_key_is_found_by_its_exact_name_or_not_at_all(token: str, kid: object, key: bytes) -> None:
    ring = signer(Key("2025", SECRET.encode()), Key("2024", b"o" * 32))
    assert not is_refused(forged({**HS256, "kid": "2025"}, claims_of(token)), ring)
    assert is_refused(forged({**HS256, "kid": kid}, claims_of(token), key=key), ring)


def test_a_key_verifies_under_its_own_name_alone(token: str) -> None:
    ring, claims = signer(Key("new", b"n" * 32), Key("old", b"o" * 32), Key(None, SECRET.encode())), claims_of(token)
    names = {"new": b"n" * 32, "old": b"o" * 32, None: SECRET.encode()}
    for name in names:
        for other, key in names.items():
            header = HS256 if name is None else {**HS256, "kid": name}
            assert is_refused(forged(header, claims, key=key), ring) is (name != other)
    assert is_refused(forged({**HS256, "kid": "new"}, claims, key=b"n" * 32)), "a service without names knows none"


# --- claims -----------------------------------------------------------------------------------------------------------


CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": NOW - 1},
    "expires now": {"exp": NOW},
    "expired long ago": {"exp": 0},
    "expiry below zero": {"exp": -1},
    "expiry is a truth": {"exp": True},
    "expiry is text": {"exp": str(NOW + 10)},
    "expiry is a fraction": {"exp": NOW + 10.5},
    "expiry is infinite": {"exp": float("inf")},
    "expiry is no number": {"exp": float("nan")},
    "expiry is null": {"exp": None},
    "expiry is a list": {"exp": [NOW + 10]},
    "not before later": {"nbf": NOW + 61},
    "not before much later": {"nbf": NOW + 10**6},
    "not before is text": {"nbf": "soon"},
    "issued ahead": {"iat": NOW + 61},
    "issued in a year": {"iat": NOW + 31_536_000, "exp": NOW + 31_536_060},
    "issue is text": {"iat": str(NOW)},
    "issue is null": {"iat": None},
    "audience is another": {"aud": "imagesearch"},
    "audience is ours among others": {"aud": ["imagesearch-feedback", "x"]},
    "audience is a list of ours": {"aud": ["imagesearch-feedback"]},
    "audience is empty": {"aud": ""},
    "audience is null": {"aud": None},
    "audience is another case": {"aud": "Imagesearch-Feedback"},
    "issuer is another": {"iss": "elsewhere"},
    "issuer is a list": {"iss": ["imagesearch"]},
    "issuer is null": {"iss": None},
    "issuer has a blank": {"iss": "imagesearch "},
    "token id is empty": {"jti": ""},
    "token id is overlong": {"jti": "j" * 300},
    "token id is a list": {"jti": ["j"]},
    "ids are no hashes": {"ids": ["../../etc/passwd"]},
    "ids are too many": {"ids": ["a" * 64] * 1001},
    "about something else": {"about": "everything"},
    "segment is text": {"segment": "0"},
    "query is a list": {"query": []},
    "rank is below one": {"rank": 0},
}  # fmt: skip


@pytest.mark.parametrize("attack", CLAIMS)
def test_claims_that_do_not_hold_are_refused_although_the_signature_is_right(token: str, attack: str) -> None:
    assert is_refused(forged(HS256, {**claims_of(token), **CLAIMS[attack]}))


@pytest.mark.parametrize("name", ["iss", "aud", "iat", "exp", "jti", "sid", "query", "model", "ids", "about"])
def test_a_claim_that_is_missing_is_refused(token: str, name: str) -> None:
    assert is_refused(forged(HS256, {key: value for key, value in claims_of(token).items() if key != name}))


def test_tokens_of_another_service_are_refused_though_the_key_is_the_same(token: str) -> None:
    assert is_refused(token, signer(issuer="another"))
    assert is_refused(token, signer(audience="another"))
    assert is_refused(token, signer(Key(None, b"another secret of 32 bytes or so")))


# --- the text of a token ----------------------------------------------------------------------------------------------


def _duplicated(part: bytes, name: str, value: object) -> Iterator[bytes]:
    """A JSON object with one of its names twice: ours first, then last."""
    added = json.dumps({name: value})[1:-1].encode()
    yield part[:-1] + b", " + added + b"}"
    yield b"{" + added + b", " + part[1:]


def test_a_name_that_stands_twice_is_refused_wherever_it_stands(token: str) -> None:
    header, claims = (unb64(part) for part in token.split(".")[:2])
    for name, value in (("alg", "none"), ("alg", "HS256"), ("typ", "JWT")):
        assert all(is_refused(forged(part, claims)) for part in _duplicated(header, name, value))
    for name, value in (("exp", NOW + 10**6), ("jti", "another"), ("ids", ["0" * 64]), ("aud", "imagesearch-feedback")):
        assert all(is_refused(forged(header, part)) for part in _duplicated(claims, name, value))
    nested = claims.replace(b'"query":{"text":"red"}', b'"query":{"text":"red","text":"blue"}')
    assert nested != claims
    assert is_refused(forged(header, nested))


def test_each_bit_of_header_and_signature_counts_and_any_of_the_claims(token: str) -> None:
    seed = int(time.time())
    print("seed", seed)
    header, claims, signature = token.split(".")
    for part in (0, 2):
        parts = [header, claims, signature]
        whole = bytearray(unb64(parts[part]))
        for bit in range(len(whole) * 8):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            assert is_refused(".".join([*parts[:part], b64(bytes(changed)), *parts[part + 1 :]])), (part, bit)
    whole = bytearray(unb64(claims))
    for bit in random.Random(seed).sample(range(len(whole) * 8), 300):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        assert is_refused(f"{header}.{b64(bytes(changed))}.{signature}"), bit


def test_a_token_cut_anywhere_is_refused(token: str) -> None:
    assert all(is_refused(token[:length]) and is_refused(token[length:]) for length in range(1, len(token)))


def _other_spellings(token: str) -> Iterator[str]:
    header, claims, signature = token.split(".")
    for at, part in enumerate((header, claims, signature)):
        parts = [header, claims, signature]
        for spelled in (
            part + "=" * (-len(part) % 4 or 4), part.replace("-", "+").replace("_", "/") + "+", f" {part}", f"{part}\n", f"{part}\r\n", f"\t{part}",
            f"{part[:9]}\n{part[9:]}", f"{part}%3D", f"{part}\0", f"{part}\u200b", part + "\uff41", part + "A", part * 2,
        ):  # fmt: skip
            yield ".".join([*parts[:at], spelled, *parts[at + 1 :]])
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(signature[-1])
    for unused in range(1, 4):  # 32 bytes end in four bits of the last character: the other two could be anything
        yield token[:-1] + alphabet[last ^ unused]
    yield from (
        f".{token}",
        f"{token}.",
        f"{token}.{signature}",
        f"{header}..{signature}",
        f"{claims}.{header}.{signature}",
        f"{token},{token}",
    )
    yield from (f"Bearer {token}", f'"{token}"', f"{token};", f"{token}?", f"{token}#", token.swapcase())


def test_only_the_one_spelling_counts(token: str) -> None:
    assert [spelled for spelled in _other_spellings(token) if not is_refused(spelled)] == []


def test_what_is_overlong_is_refused_before_anything_is_made_of_it(token: str) -> None:
    padded = forged(HS256, {**claims_of(token), "filler": "x" * MAX_TOKEN_CHARACTERS})
    started = time.perf_counter()
    assert is_refused(padded)
    assert is_refused("A" * 10**7)
    assert is_refused(forged(b"[" * 5000, claims_of(token)))
    assert is_refused(forged(HS256, b'{"a":' * 4000 + b"1" + b"}" * 4000))
    assert time.perf_counter() - started < 1


def test_signatures_are_compared_whole_and_in_constant_time(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a comparison cannot be told apart reliably; that all of both goes into the one that is made for it can."""
    compared: list[tuple[bytes, bytes]] = []
    original: Callable[..., bool] = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (compared.append((a, b)), original(a, b))[1])
    signing, _, signature = token.rpartition(".")
    for wrong in (b"\0" * 32, unb64(signature)[:-1] + b"\0", b"\0" + unb64(signature)[1:]):
        assert is_refused(f"{signing}.{b64(wrong)}")
        offered, right = compared.pop()
        assert {offered, right} == {wrong, unb64(signature)}
    assert compared == []


# --- over HTTP: spent twice, borrowed, in the wrong place -------------------------------------------------------------


async def _status(world: World, **body: Any) -> int:
    return (await world.client.post(RATE, json=body)).status


async def test_fifty_at_once_spend_a_token_once_and_none_does_after_a_restart(make_world: MakeWorld) -> None:
    world = await make_world()
    await world.add(picture("red"), "red.png")
    spent = (await world.search(text="red"))["jwt"]
    statuses = await asyncio.gather(*(_status(world, user_feedback=1 + n % 10, jwt=spent) for n in range(50)))
    assert sorted(statuses) == [201] + [409] * 49
    await world.client.close()
    again = await make_world()
    assert await _status(again, user_feedback=5, jwt=spent) == 409


async def test_two_services_on_one_ledger_count_a_token_once(make_world: MakeWorld) -> None:
    world = await make_world()
    await world.add(picture("red"), "red.png")
    app = create_app(
        world.settings, embedder=world.embedder, vectors=FakeVectorStore(world.vectors.stored), catalog=world.catalog
    )
    async with TestClient(TestServer(app)) as other:
        twin = World(other, world.settings, world.embedder, world.vectors, world.catalog)
        for _ in range(5):
            shown = (await world.search(text="red"))["jwt"]
            asked = (_status(who, user_feedback=5, jwt=shown) for who in (world, twin) for _ in range(10))
            assert sorted(await asyncio.gather(*asked)) == [201] + [409] * 19


_SPEND = """
import asyncio, sys
from pathlib import Path
from core.errors import Conflict
from searchsvc.feedback import FeedbackStore, Rating
from searchsvc.feedback_file import FileFeedback

async def spend():
    won = 0
    async with FeedbackStore(FileFeedback(Path(sys.argv[1]))) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(40):
            try:
                await store.add(Rating(f"jti-{n}", 5, None, None, "s", {}, "m", []))
                won += 1
            except Conflict:
                pass
    print(won)

asyncio.run(spend())
"""


def test_two_processes_on_one_ledger_count_each_token_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SPEND, str(tmp_path / "feedback.sqlite")]
    first, second = (subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2))
    with first, second:
        for process in (first, second):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outcomes = [int(process.communicate(timeout=60)[0]) for process in (first, second)]
    assert sum(outcomes) == 40, outcomes


async def test_a_matchs_token_rates_its_own_picture_and_a_search_what_it_showed(world: World) -> None:
    for colour in ("red", "blue"):
        await world.add(picture(colour), f"{colour}.png")
    first, second = (await world.search(text="red"))["matches"]
    assert await _status(world, user_feedback=5, jwt=first["jwt"], image_id=second["image_id"]) == 422
    alone = await world.search(text="red", top_k=1)
    assert await _status(world, user_feedback=5, jwt=alone["jwt"], image_id=second["image_id"]) == 422
    assert await _status(world, user_feedback=5, jwt=first["jwt"], image_id=first["image_id"]) == 201


async def test_a_token_in_another_place_counts_for_nothing(make_world: MakeWorld) -> None:
    world = await make_world(api_keys="a-key-of-the-operator")
    await world.add(picture("red"), "red.png")
    found = await world.search(text="red")
    shown = found["jwt"]
    for headers in ({"Authorization": f"Bearer {shown}"}, {"Cookie": f"jwt={shown}"}, {"X-JWT": shown}):
        assert (await world.client.post(RATE, json={"user_feedback": 5}, headers=headers)).status == 401
        assert (await world.client.post("/api/v1/images", headers=headers)).status == 401
    assert (await world.client.post(f"{RATE}?jwt={shown}", json={"user_feedback": 5})).status == 401
    assert (await world.client.post("/api/v1/search-image", json={"cursor": shown})).status == 422
    assert await _status(world, user_feedback=5, jwt=found["cursor"] or "none") == 401
    key = {"Authorization": "Bearer a-key-of-the-operator"}
    assert (await world.client.post(RATE, json={"user_feedback": 5}, headers=key)).status == 401, "a key is no token"
