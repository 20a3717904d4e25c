"""Folders of settings, as shells hand them over."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.settings import faults_of
from model_service.settings import ModelSettings
from watcher.settings import WatcherSettings


def test_a_tilde_that_the_shell_left_alone_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable, below in (("IMAGES_DIR", "Pictures"), ("DATA_DIR", "state"), ("MODELS_DIR", "weights")):
        monkeypatch.setenv(variable, f"~/{below}")
    watcher = WatcherSettings()
    assert (watcher.images_dir, watcher.data_dir) == (tmp_path / "Pictures", tmp_path / "state")
    assert ModelSettings().models_dir == tmp_path / "weights"


def test_the_home_of_nobody_is_a_fault_of_that_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES_DIR", "~nobody-of-this-name/Pictures")
    with pytest.raises(ValidationError) as error:
        WatcherSettings()
    assert faults_of(error.value).startswith("  IMAGES_DIR: ")


def test_state_may_lie_hidden_in_the_watched_folder_beside_it_or_beside_a_bucket(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for data_dir in (pictures / ".imagesearch", tmp_path, tmp_path / "state"):
        assert WatcherSettings(images_dir=pictures, data_dir=data_dir).data_dir == data_dir
    assert WatcherSettings(images_dir=pictures, data_dir=pictures, images_url="s3://bucket").data_dir == pictures


def test_a_bucket_whose_name_cannot_be_is_a_fault_of_the_variable_that_names_it() -> None:
    with pytest.raises(ValidationError) as error:
        WatcherSettings(images_url="s3://B")
    assert faults_of(error.value).startswith("  IMAGES_URL, or the service that it is of: write a bucket as s3://bucket")


def test_a_link_into_the_watched_folder_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "pictures" / "state").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "pictures" / "state")
    with pytest.raises(ValidationError, match="DATA_DIR lies in the watched folder"):
        WatcherSettings(images_dir=tmp_path / "pictures", data_dir=tmp_path / "link")
