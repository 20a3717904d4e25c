"""What `make test` makes of tests that fail: in company, alone, or many."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import phases

OPTIONS = """
[pytest]
markers =
    long: not run
    serial: one by one
"""
IN_COMPANY = """
import os
import pytest

@pytest.mark.parametrize("number", range({number}))
def test_needs_to_be_alone(number):
    assert "PYTEST_XDIST_WORKER" not in os.environ
"""
DIES = """
import os, signal

def test_dies_in_company():
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
"""
WRONG = "def test_wrong():\n    assert False\n"
SERIAL = "import pytest\n\n@pytest.mark.serial\ndef test_serial():\n    assert {right}\n"


@pytest.mark.parametrize(
    ("tests", "ends_well"),
    [
        ({"test_company.py": IN_COMPANY.format(number=1), "test_serial.py": SERIAL.format(right=True)}, True),
        ({"test_company.py": IN_COMPANY.format(number=phases.A_FEW + 1)}, False),
        ({"test_company.py": IN_COMPANY.format(number=1), "test_wrong.py": WRONG}, False),
        ({"test_serial.py": SERIAL.format(right=False)}, False),
        ({"test_dies.py": f"{DIES}\n{WRONG}"}, False),
    ],
)
def test_what_fails_in_company_has_its_verdict_alone(tmp_path: Path, tests: dict[str, str], ends_well: bool) -> None:
    for name, text in {"pytest.ini": OPTIONS, **tests}.items():
        (tmp_path / name).write_text(text)
    named = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    named |= {"TEST_WORKERS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist"}
    asked = [sys.executable, phases.__file__]
    ended = subprocess.run(asked, cwd=tmp_path, env=named, capture_output=True, text=True, check=False)
    assert (ended.returncode == 0) is ends_well, ended.stdout
    assert ("failed in company: test_company.py::test_needs_to_be_alone[0]" in ended.stdout) is ("test_company.py" in tests)
