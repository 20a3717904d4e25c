"""`imagesearch sizing`: what so many pictures take. Asks nobody."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict, dataclass, fields

from imagesearch.client import Client
from imagesearch.command.exits import Exit, UsageError
from imagesearch.command.screen import Screen
from imagesearch.sizing.costs import measured
from imagesearch.sizing.plan import Wanted, planned
from imagesearch.sizing.telling import told
from imagesearch.sizing.vectors import Quantization

_MULTIPLES = {"k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}


def count(text: str) -> int:
    """`250000`, `250k`, `100M`, `1B`."""
    multiple = _MULTIPLES.get(text[-1:], 1.0)
    try:
        return round(float(text.removesuffix(text[-1:]) if text[-1:] in _MULTIPLES else text) * multiple)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"{text} is no number such as 250000, 250k, 100M or 1B") from None


@dataclass(frozen=True, slots=True)
class Sizing:
    """Its fields are those of `Wanted`."""

    pictures: int
    segments: float
    dims: tuple[int, ...]
    quantization: Quantization
    vectors_on_disk: bool
    replicas: int
    node_memory_gib: float
    node_disk_gib: float
    picture_bytes: float | None
    arrivals_per_s: float
    backfill_days: float
    gpu_pictures_per_s: float | None
    ratings: int

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        usual = Wanted(pictures=1)
        parser.add_argument("--pictures", type=count, required=True, metavar="N", help="such as 250k, 100M, 1B")
        parser.add_argument(
            "--segments", type=float, default=usual.segments, metavar="N", help="of a picture; 0: without a segmenter (default 4)"
        )
        parser.add_argument(
            "--dims",
            type=_dims,
            default=usual.dims,
            metavar="D,D",
            help="numbers of a vector in each space (default 512; with ResNet-50 512,2048)",
        )
        parser.add_argument(
            "--quantization",
            choices=["off", "scalar", "binary"],
            default=usual.quantization,
            help="VECTORS_QUANTIZATION (default scalar)",
        )
        parser.add_argument(
            "--vectors-in-memory",
            dest="vectors_on_disk",
            action="store_false",
            help="VECTORS_ON_DISK=false (default: on the disk)",
        )
        parser.add_argument("--replicas", type=int, default=usual.replicas, metavar="N", help="QDRANT_REPLICAS (default 2)")
        parser.add_argument(
            "--node-memory",
            dest="node_memory_gib",
            type=float,
            default=usual.node_memory_gib,
            metavar="GIB",
            help="of a Qdrant node (default 64)",
        )
        parser.add_argument(
            "--node-disk", dest="node_disk_gib", type=float, default=usual.node_disk_gib, metavar="GIB", help="(default 2000)"
        )
        parser.add_argument("--picture-bytes", type=float, metavar="BYTES", help="of a file, on average (default: as measured)")
        parser.add_argument(
            "--arrivals",
            dest="arrivals_per_s",
            type=float,
            default=usual.arrivals_per_s,
            metavar="N",
            help="new pictures a second afterwards (default 1)",
        )
        parser.add_argument(
            "--backfill-days",
            type=float,
            default=usual.backfill_days,
            metavar="DAYS",
            help="in which all are to be in (default 30)",
        )
        parser.add_argument(
            "--gpu-pictures",
            dest="gpu_pictures_per_s",
            type=float,
            metavar="N",
            help="that one GPU embeds and segments a second, as you measured it (default: models on CPUs)",
        )
        parser.add_argument("--ratings", type=count, default=usual.ratings, metavar="N", help="that are kept (default 0)")

    def run(self, client: Client, screen: Screen) -> Exit:
        try:
            plan = planned(Wanted(**{field.name: getattr(self, field.name) for field in fields(Wanted)}), measured())
            lines = told(plan)
        except ValueError as error:
            raise UsageError(str(error)) from None
        except ArithmeticError:
            raise UsageError("such numbers are too large to be reckoned with") from None
        if screen.as_json:
            screen.document(asdict(plan))
        elif screen.for_people:
            screen.table([(line.what, line.value, line.why) for line in lines], right=(1,))
        else:
            for line in lines:
                screen.line(line.what, line.value, line.why)
        return Exit.DONE


def _dims(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"{text} is no list such as 512,2048") from None
