"""Where weights come from: a folder that was named, MODELS_DIR, the Hugging Face cache, and last the network.

The network is asked once, with a short time-out, before anything is fetched: without one, the libraries' own loaders
hang for half a minute. What is fetched goes into MODELS_DIR. Blocking; called on the loading thread only.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

_ULTRALYTICS_ASSETS = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
_CHUNK = 1 << 20
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class NotFetched(Exception):
    """Weights could not be had from the network; `str` says why, without paths."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk. `name` is the hub id or file name that they were asked for by."""

    path: Path
    name: str
    revision: str

    @property
    def collection(self) -> str:
        """The name of the collection of its embedding space."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.name.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")
        return f"{slug or 'model'}-{self.revision[:8]}"


@dataclass(frozen=True, slots=True)
class Sources:
    """`models_dir` need not exist. `tell` takes one line about what goes on, for people who wait."""

    models_dir: Path
    hub_timeout_s: float
    tell: Callable[[str], None]

    def folder(self, name: str) -> Checkpoint | None:
        """A complete `transformers` checkpoint folder on disk."""
        for place in self._places(name):
            if is_complete(place):
                return Checkpoint(place, _public_name(name), _revision(place))
        return None

    def fetched_folder(self, name: str) -> Checkpoint:
        """Fetch from the Hugging Face hub into MODELS_DIR. Raises NotFetched."""
        from huggingface_hub import constants, snapshot_download  # noqa: PLC0415 - slow to import, and seldom needed

        if constants.HF_HUB_OFFLINE or not _HUB_ID.fullmatch(name):
            raise NotFetched("the hub is switched off (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else f"{name} is no hub id")
        listing = self._asked(f"{constants.ENDPOINT}/api/models/{name}")
        files = [str(sibling.get("rfilename")) for sibling in listing.get("siblings", [])]
        self.tell(f"fetching {name} from the Hugging Face hub")
        log.info("model_fetch_started", model=name, files=len(files))
        try:
            snapshot = Path(
                snapshot_download(
                    name,
                    cache_dir=self.models_dir / "hub",
                    allow_patterns=["*.json", "*.txt", "*.model", _weights_pattern(files)],
                    ignore_patterns=["*/*", "tf_*", "flax_*"],
                )
            )
        except Exception as error:
            raise NotFetched(f"fetching {name} broke off ({type(error).__name__})") from error
        if not is_complete(snapshot):
            raise NotFetched(f"{name} on the hub is no complete checkpoint")
        log.info("model_fetched", model=name)
        return Checkpoint(snapshot, name, _revision(snapshot))

    def segmenter(self, name: str) -> Checkpoint | None:
        """A YOLO checkpoint file on disk."""
        places = (Path(name).expanduser(), self.models_dir / name, self.models_dir / Path(name).name)
        found = next((place for place in places if place.is_file()), None)
        return Checkpoint(found, found.name, file_hash([found])) if found else None

    def any_segmenter(self) -> Checkpoint | None:
        """The one `*seg*.pt` of MODELS_DIR, if there is exactly one."""
        found = sorted(self.models_dir.glob("*seg*.pt")) if self.models_dir.is_dir() else []
        return self.segmenter(found[0].name) if len(found) == 1 else None

    def fetched_segmenter(self, name: str) -> Checkpoint:
        """Fetch a file of the ultralytics release into MODELS_DIR. Raises NotFetched."""
        from huggingface_hub import constants  # noqa: PLC0415 - as above

        if constants.HF_HUB_OFFLINE or Path(name).name != name:
            raise NotFetched("the network is switched off (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "no such file")
        self.tell(f"fetching {name}")
        target, partial = self.models_dir / name, self.models_dir / f"{name}.part"
        try:
            self.models_dir.mkdir(parents=True, exist_ok=True)
            with _open_url(f"{_ULTRALYTICS_ASSETS}/{name}", self.hub_timeout_s) as response, partial.open("wb") as file:
                expected = int(response.headers.get("Content-Length") or 0)
                _copy(response, file, name, expected)
            if expected and partial.stat().st_size != expected:
                raise NotFetched(f"fetching {name} broke off")
            partial.replace(target)
        except (OSError, ValueError) as error:
            partial.unlink(missing_ok=True)
            raise NotFetched(f"{name} cannot be fetched ({type(error).__name__})") from error
        return Checkpoint(target, name, file_hash([target]))

    def _places(self, name: str) -> list[Path]:
        """Where a checkpoint folder may lie, in the order in which it is looked for."""
        base = name.rstrip("/").rsplit("/", 1)[-1]
        places = [Path(name).expanduser(), self.models_dir / name, self.models_dir / base]
        if _HUB_ID.fullmatch(name):
            from huggingface_hub import constants  # noqa: PLC0415 - as above

            for cache in (self.models_dir, self.models_dir / "hub", Path(constants.HF_HUB_CACHE)):
                places += _snapshots(cache / f"models--{name.replace('/', '--')}")
        return places

    def _asked(self, url: str) -> dict[str, Any]:
        """The hub's answer within `hub_timeout_s`, the look-up of its address included. Raises NotFetched."""
        answers: list[dict[str, Any]] = []

        def ask() -> None:
            try:
                with _open_url(url, self.hub_timeout_s) as response:
                    answers.append(json.load(response))
            except (OSError, ValueError) as error:
                log.debug("hub_not_reached", error=repr(error))

        asking = threading.Thread(target=ask, name="ask-hub", daemon=True)
        asking.start()
        asking.join(self.hub_timeout_s)
        if not answers:
            raise NotFetched("the Hugging Face hub cannot be reached, or has no such model")
        return answers[0]


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a configuration and every weights file that it names."""
    if not (folder / "config.json").is_file():
        return False
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            return False
        return all((folder / shard).is_file() for shard in shards)
    return bool(_weights(folder))


def file_hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _weights(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])


def _revision(folder: Path) -> str:
    """The hub's commit for a snapshot of its cache, else a hash of all that makes the vectors: weights, vocabulary, configuration."""
    if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
        return folder.name
    return file_hash(sorted({*_weights(folder), *folder.glob("*.json"), *folder.glob("*.txt"), *folder.glob("*.model")}))


def _snapshots(cached: Path) -> list[Path]:
    """Snapshots of a hub cache: the one that `main` names first, then the newest."""
    snapshots = cached / "snapshots"
    if not snapshots.is_dir():
        return []
    reference = cached / "refs" / "main"
    named = [snapshots / reference.read_text().strip()] if reference.is_file() else []
    return named + sorted(snapshots.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)


def _public_name(name: str) -> str:
    """A hub id as it is, of a path its last part alone."""
    return name if _HUB_ID.fullmatch(name) and not name.startswith(".") else Path(name).name


def _weights_pattern(files: list[str]) -> str:
    return "*.safetensors" if any(name.endswith(".safetensors") and "/" not in name for name in files) else "pytorch_model*.bin"


def _open_url(url: str, timeout_s: float) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "imagesearch"})  # noqa: S310 - https, from constants of ours
    return urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310 - as above


def _copy(response: Any, file: Any, name: str, expected: int) -> None:
    copied = told = 0
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        copied += len(chunk)
        if expected and copied * 10 // expected > told:
            told = copied * 10 // expected
            log.info("model_fetching", model=name, percent=told * 10)
