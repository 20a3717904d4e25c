"""A variable that is nearly a setting is told; what belongs to others is not."""

from __future__ import annotations

import pytest

from model_service.settings import ModelSettings
from standalone.misspelt import misspelt
from standalone.settings import StandaloneSettings
from watcher.settings import WatcherSettings

SETTINGS = (StandaloneSettings, WatcherSettings, ModelSettings)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [("IMAGE_DIR", "IMAGES_DIR"), ("MODEL_DIR", "MODELS_DIR"), ("DATADIR", "DATA_DIR"), ("DATABASE_URI", "DATABASE_URL")],
)
def test_a_letter_too_many_or_too_few_is_noticed(variable: str, meant: str) -> None:
    assert misspelt({variable, "PATH", "HOME"}, SETTINGS) == {variable: meant}


def test_settings_and_what_belongs_to_others_are_not_questioned() -> None:
    others = {"HOSTNAME", "HOSTS", "XDG_DATA_DIRS", "MAKEFLAGS", "MODEL_URL", "MODEL_URLS", "OMP_NUM_THREADS", "LOG_FILE"}
    assert misspelt(others, SETTINGS) == {}


def test_a_setting_that_is_set_as_well_is_the_one_that_was_meant() -> None:
    assert misspelt({"IMAGE_DIR", "IMAGES_DIR"}, SETTINGS) == {}
