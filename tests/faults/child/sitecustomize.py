"""First on the PYTHONPATH of processes under test, so that Python runs it before anything of theirs (see `tests.faults.injected`)."""

from tests.faults.injected import install

install()
