"""Which model services a caller is told of."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from searchsvc.settings import SearchSettings
from watcher.settings import WatcherSettings

_ALONE = "http://127.0.0.1:8001"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (_ALONE,)),
        ({"MODEL_URL": "http://a:1/"}, ("http://a:1",)),
        ({"MODEL_URLS": "http://b:1, http://c:1/,"}, ("http://b:1", "http://c:1")),
        ({"MODEL_URL": "http://a:1", "MODEL_URLS": "http://b:1,http://a:1"}, ("http://a:1", "http://b:1")),
        ({"MODEL_URLS": ""}, (_ALONE,)),
        ({"MODEL_URLS": "https://[::1]:8001"}, ("https://[::1]:8001",)),
    ],
)
@pytest.mark.parametrize("settings", [SearchSettings, WatcherSettings])
def test_the_one_address_is_one_of_them_where_it_is_set(
    monkeypatch: pytest.MonkeyPatch,
    settings: type[SearchSettings | WatcherSettings],
    environment: dict[str, str],
    expected: tuple[str, ...],
) -> None:
    for name in ("MODEL_URL", "MODEL_URLS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settings().model_services == expected


@pytest.mark.parametrize(
    "wrong", ["model:8001", "ftp://model:8001", "http://", "http://a:1;http://b:1,nonsense", "http://a:port"]
)
def test_what_is_no_address_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("MODEL_URLS", wrong)
    with pytest.raises(ValidationError, match="http://host:port"):
        SearchSettings()
