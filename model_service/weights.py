"""Where weights are: a folder that was named, MODELS_DIR, the Hugging Face cache, and last the network.

The network is asked once, with a short time-out, before anything is fetched: without one, the libraries' own loaders hang
for half a minute. What is fetched goes into MODELS_DIR. Blocking; called on the loading thread only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import structlog

from core.files import sweep, sync, unfinished

log = structlog.get_logger()

ULTRALYTICS_ASSETS = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
SECOND_SEGMENTER = "yoloe-11s-seg-pf.pt"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PROJECTION = "projection.safetensors"  # as backbones.PROJECTION, whose import would bring torch
_CHUNK = 1 << 20
_STALL_S = 30.0


class NotFetched(Exception):
    """Weights could not be had from the network; `str` says why, without paths."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk. `name` is the hub id, or the last part of the path, that they were asked for by."""

    path: Path
    name: str
    revision: str

    @property
    def collection(self) -> str:
        """The name of the collection of its embedding space."""
        slug = re.sub(r"[^a-z0-9.]+", "-", base_name(self.name).lower()).strip("-.")
        return f"{slug or 'model'}-{self.revision[:8]}"

    def joined_with(self, other: Checkpoint) -> str:
        """The revision of a space that both make."""
        return hashlib.sha256(f"{self.revision} {other.revision}".encode()).hexdigest()[:16]


class Weights:
    """One look for weights. The network is given up at its first failure, so that an offline start waits for it once."""

    def __init__(self, models_dir: Path, *, hub_timeout_s: float, may_fetch: bool = True) -> None:
        self._models_dir = models_dir
        self._hub_timeout_s = hub_timeout_s
        self._may_fetch = may_fetch
        self._unreachable: str | None = None

    def folder(self, name: str) -> Checkpoint:
        """A `transformers` checkpoint by hub id or path, fetched if need be. Raises NotFetched."""
        found = next((place for place in self._places(name) if is_complete(place)), None)
        if found is not None:
            return Checkpoint(found, public_name(name), _folder_revision(found))
        return self._fetched_folder(name)

    def segmenter(self, name: str) -> Checkpoint:
        """The checkpoint file `name`, or another that stands in for it on this disk, fetched if need be. Raises NotFetched."""
        places = (Path(name).expanduser(), self._models_dir / name, self._models_dir / SECOND_SEGMENTER)
        others = sorted(self._models_dir.glob("*seg*.pt")) if self._models_dir.is_dir() else []
        found = next((place for place in (*places, *others) if place.is_file()), None)
        return _file(found) if found is not None else self._fetched_segmenter(name)

    def _places(self, name: str) -> list[Path]:
        """Where a checkpoint folder may lie, in the order in which it is looked for."""
        places = [Path(name).expanduser(), self._models_dir / name, self._models_dir / base_name(name)]
        if _HUB_ID.fullmatch(name):
            cached = f"models--{name.replace('/', '--')}"
            for cache in (self._models_dir, self._models_dir / "hub", _hub_cache()):
                places += _snapshots(cache / cached)
        return places

    def _reach(self, url: str) -> None:
        """Raises NotFetched."""
        if not self._may_fetch:
            raise NotFetched("this profile fetches nothing")
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise NotFetched("the network is switched off (HF_HUB_OFFLINE)")
        if self._unreachable is None and not _reachable(url, self._hub_timeout_s):
            self._unreachable = "the model hub cannot be reached"
        if self._unreachable is not None:
            raise NotFetched(self._unreachable)

    def _fetched_folder(self, name: str) -> Checkpoint:
        """Raises NotFetched."""
        if not _HUB_ID.fullmatch(name):
            raise NotFetched("it is no hub id, and no such folder holds a checkpoint")
        from huggingface_hub import HfApi, constants, snapshot_download  # noqa: PLC0415 - slow to import, and seldom needed

        endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        self._reach(endpoint)
        log.info("weights_download_started", model=name)
        try:
            listed = HfApi(endpoint=endpoint).model_info(name, timeout=max(_STALL_S, self._hub_timeout_s)).siblings or []
            snapshot = Path(
                snapshot_download(
                    name,
                    cache_dir=self._models_dir,
                    endpoint=endpoint,
                    allow_patterns=["*.json", "*.txt", "*.model", _weights_pattern([file.rfilename for file in listed])],
                    ignore_patterns=["*/*", "tf_*", "flax_*"],
                )
            )
        except Exception as error:
            log.warning("weights_download_failed", model=name, error=repr(error))
            raise NotFetched(f"the download from the hub failed ({type(error).__name__})") from error
        if not is_complete(snapshot):
            raise NotFetched("the hub has no complete checkpoint of it")
        log.info("weights_downloaded", model=name)
        return Checkpoint(snapshot, name, _folder_revision(snapshot))

    def _fetched_segmenter(self, name: str) -> Checkpoint:
        """Raises NotFetched."""
        if Path(name).name != name:
            raise NotFetched("there is no such file")
        url = f"{ULTRALYTICS_ASSETS}/{name}"
        self._reach(url)
        log.info("weights_download_started", model=name)
        try:
            self._models_dir.mkdir(parents=True, exist_ok=True)
            _download(url, self._models_dir / name)
        except (OSError, ValueError) as error:
            log.warning("weights_download_failed", model=name, error=repr(error))
            raise NotFetched(f"the download failed ({type(error).__name__})") from error
        log.info("weights_downloaded", model=name)
        return _file(self._models_dir / name)


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a configuration and every weights file that it names."""
    if not (folder / "config.json").is_file():
        return False
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            return False
        return all((folder / shard).is_file() for shard in shards)
    return any(path.name != _PROJECTION for path in _weight_files(folder))


def base_name(name: str) -> str:
    return Path(name).name or name


def public_name(name: str) -> str:
    """A hub id as it is, of a path its last part alone: fit to be shown."""
    return name if _HUB_ID.fullmatch(name) else base_name(name)


def content_revision(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _file(path: Path) -> Checkpoint:
    return Checkpoint(path, path.name, content_revision([path]))


def _folder_revision(folder: Path) -> str:
    """The hub's commit for a snapshot of its cache, else a hash of all that makes the vectors: weights, vocabulary, configuration."""
    if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
        return folder.name
    return content_revision(
        sorted({*_weight_files(folder), *(path for kind in ("json", "txt", "model") for path in folder.glob(f"*.{kind}"))})
    )


def _weight_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])


def _weights_pattern(files: list[str]) -> str:
    return "*.safetensors" if any(name.endswith(".safetensors") and "/" not in name for name in files) else "pytorch_model*.bin"


def _hub_cache() -> Path:
    from huggingface_hub import constants  # noqa: PLC0415 - slow to import

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)


def _snapshots(cached: Path) -> list[Path]:
    """Snapshots in a hub cache: the one that `main` names first, then the newest."""
    snapshots, reference = cached / "snapshots", cached / "refs" / "main"
    if not snapshots.is_dir():
        return []
    named = [snapshots / reference.read_text(encoding="utf-8").strip()] if reference.is_file() else []
    return named + sorted(snapshots.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)


def _reachable(url: str, timeout_s: float) -> bool:
    """Whether any server answers there in time; on a thread, since the look-up of a name heeds no time-out."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s):  # noqa: S310 - ours
                answered.set()
        except urllib.error.HTTPError as error:
            error.close()
            answered.set()
        except (OSError, ValueError) as error:
            log.debug("hub_not_reached", error=repr(error))

    asking = threading.Thread(target=ask, name="ask-hub", daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answered.is_set()


def _download(url: str, target: Path) -> None:
    """Complete or not at all; others may share the folder, and fetch the same. Raises OSError or ValueError."""
    sweep(target)
    partial = unfinished(target)
    try:
        with urllib.request.urlopen(url, timeout=_STALL_S) as response, partial.open("wb") as file:  # noqa: S310 - https
            expected, copied = int(response.headers.get("Content-Length") or 0), 0
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                if expected and (copied + len(chunk)) * 10 // expected > copied * 10 // expected:
                    log.info("weights_downloading", model=target.name, percent=(copied + len(chunk)) * 100 // expected)
                copied += len(chunk)
        if expected and copied != expected:
            raise ValueError(f"{copied} of {expected} bytes came")
        sync([partial])
        partial.replace(target)
        sync([target.parent])
    finally:
        partial.unlink(missing_ok=True)
