"""Secrets that could be guessed, and keys that lie somewhere as they are."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from hashlib import sha256

import pytest
from pydantic import ValidationError

from core.errors import Unauthorized
from searchsvc.access import WriteAccess
from searchsvc.api_keys import StoredKey, made
from searchsvc.settings import SearchSettings
from tests.unit.searchsvc.conftest import SECRET, MakeWorld

GUESSABLE = (
    "secret",
    "changeme",
    "test-secret",
    "a" * 64,
    "abab" * 16,
    "0" * 32,
    "your-256-bit-secret",
    "a-string-secret-at-least-256-bits-long",
)


@pytest.mark.parametrize("secret", GUESSABLE)
def test_a_secret_that_anybody_guesses_is_refused_beyond_loopback_and_not_repeated(secret: str) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.4"):
        with pytest.raises(ValidationError, match="openssl rand") as refused:
            SearchSettings(host=host, jwt_secret=secret)
        assert f"'{secret}'" not in str(refused.value)
    assert SearchSettings(host="127.0.0.1", jwt_secret=secret).jwt_secret == secret, "on this machine it only warns"


@pytest.mark.parametrize("secret", [SECRET, "9f86d081884c7d659a2feaa0c55ad015", "correct horse battery staple"])
def test_a_secret_of_some_length_is_taken(secret: str) -> None:
    assert SearchSettings(host="0.0.0.0", jwt_secret=secret).jwt_secret == secret


OF_OTHER_KINDS = (
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDvx7",
    '{"kty":"oct","k":"bWluZSBhbG9uZSBhbmQgbm8gb25lIGVsc2Uncw"}',
)


@pytest.mark.parametrize("secret", OF_OTHER_KINDS)
def test_a_key_of_another_kind_stops_the_start_and_is_not_repeated(secret: str) -> None:
    with pytest.raises(ValidationError, match="of another kind") as refused:
        SearchSettings(jwt_secret=secret)
    with pytest.raises(ValidationError, match="of another kind") as refused_too:
        SearchSettings(jwt_secrets=(("new", secret),))
    assert secret[5:30] not in f"{refused.value} {refused_too.value}"


def _may_write(access: WriteAccess, key: str) -> bool:
    try:
        access.check(authorization=f"Bearer {key}", origin=None, host="server:3000")
    except Unauthorized:
        return False
    return True


def test_a_key_is_known_by_its_hash_and_the_hash_is_no_key() -> None:
    key, stored = made()
    plain = sha256(key.encode()).hexdigest()
    for configured in (stored.configured, stored.configured.upper().replace("SHA256", "sha256"), f"sha256:{plain}", key):
        access = WriteAccess((configured,), listens_on="0.0.0.0")
        assert _may_write(access, key)
        wrong = [configured, stored.configured, plain, key[:-1], f"{key}x", key.swapcase(), key[::-1], "x", "\0"]
        assert not any(_may_write(access, other) for other in wrong if other != key)


def test_keys_that_are_made_differ_and_so_do_the_hashes_of_one() -> None:
    pairs = [made() for _ in range(50)]
    assert len({key for key, _ in pairs}) == len({stored.salt for _, stored in pairs}) == 50
    assert all(len(key) >= 43 and key not in stored.configured for key, stored in pairs)


@pytest.mark.parametrize(
    "given", ["sha256:wxyz", "sha256:xyz", f"sha256:{'a' * 63}", f"sha256:ab:{'a' * 64}", f"good-key,sha256:{'g' * 64}"]
)
def test_a_hash_that_is_none_stops_the_start_and_is_not_repeated(given: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SearchSettings(api_keys=given)
    assert given not in str(refused.value)


def _told() -> str:
    command = [sys.executable, "-m", "searchsvc.api_keys"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


async def test_the_command_makes_a_key_that_opens_a_service_which_holds_its_hash_alone(make_world: MakeWorld) -> None:
    key, stored = (line.rpartition(" ")[2] for line in (await asyncio.to_thread(_told)).splitlines())
    assert re.fullmatch(r"sha256:[0-9a-f]{32}:[0-9a-f]{64}", stored)
    assert StoredKey.of(stored).configured == stored
    world = await make_world(host="0.0.0.0", api_keys=stored)
    missing = f"/api/v1/images/{'0' * 64}"
    assert (await world.client.delete(missing, headers={"Authorization": f"Bearer {stored}"})).status == 401
    assert (await world.client.delete(missing, headers={"Authorization": f"Bearer {key}"})).status == 404
    assert key not in repr(world.settings) + str(world.settings.model_dump(include={"api_keys"}))
    assert stored not in repr(world.settings)


@pytest.mark.parametrize(("keys", "warned"), [("short", True), ("short,other", True), ("x" * 16, False), ("", False)])
async def test_a_key_that_could_be_found_by_trying_is_warned_of(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str], keys: str, warned: bool
) -> None:
    await make_world(host="0.0.0.0", api_keys=keys)
    told = capsys.readouterr().out
    assert ("api_keys_short" in told) is warned
    assert "other" not in told
