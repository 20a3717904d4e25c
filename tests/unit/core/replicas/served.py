"""`python -m tests.unit.core.replicas.served`: the model service as it is, but for models that cost nothing."""

from __future__ import annotations

import sys

from model_service import registry
from tests.unit.model_service.fakes import fake_parts

registry.load = lambda settings, **_: fake_parts(segmenter=False)

from model_service.__main__ import main  # noqa: E402 - it takes `load` as it finds it

if __name__ == "__main__":
    sys.exit(main())
