"""A throw-away environment a peer, since they ask for versions of the same packages that no two agree on."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from benchmarks.peers.catalog import Peer

_STAMP = ".installed"
_TIMEOUT_S = 600


class PeerFailed(Exception):
    """It could not be installed or run; its text says why, in a line."""


def python_of(peer: Peer, folder: Path) -> Path:
    """The interpreter that has it, made in `folder` if its requirements are others than when it was. Raises PeerFailed.

    What a peer's requirements don't bring is taken from the product's environment, which stands last on its path: torch alone is
    some gigabytes.
    """
    place = (folder / peer.name).resolve()
    python, stamp = place / "bin" / "python", place / _STAMP
    wanted = _digest(peer)
    if not stamp.exists() or stamp.read_text() != wanted:
        _install(peer, place, python)
        stamp.write_text(wanted)
    return python


def reason(stderr: str, *, most: int = 160) -> str:
    """Why a command failed, in a line of what it wrote: the last that pip calls an error, else the last of all."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    told = (errors or lines or ["it said nothing"])[-1].replace("|", "/")
    return told if len(told) <= most else f"{told[: most - 1]}…"


def _digest(peer: Peer) -> str:
    said = f"{peer.requirements.read_text()}\n{sys.version}\n{sysconfig.get_path('purelib')}"
    return hashlib.sha256(said.encode()).hexdigest()


def _install(peer: Peer, place: Path, python: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    command = [*pip, "install", "--no-deps", "--only-binary=:all:", "--requirement", str(peer.requirements)]
    try:
        venv.EnvBuilder(clear=True, symlinks=True).create(place)
        _share_ours(place)
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)  # noqa: S603 - pinned by name
    except OSError as error:
        raise PeerFailed(f"not installed: {reason(str(error))}") from None
    except subprocess.CalledProcessError as error:
        raise PeerFailed(f"not installed: {reason(error.stderr)}") from None
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"not installed within {_TIMEOUT_S} s") from None


def _share_ours(place: Path) -> None:
    """Behind what the environment itself has."""
    own = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    shared = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (own / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
