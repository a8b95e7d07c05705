"""What every test shares."""

import pytest
import torch
from hypothesis import settings

from polyvec.cli.options import MESSAGES
from tests.command import Command
from tests.live import live, tiny, tiny_folder  # noqa: F401 (fixtures)

# The models are so small that a second thread costs more than it brings, the more so when
# pytest-xdist's workers share the cores.
torch.set_num_threads(1)

# A machine under load is slow now and then; that is no failure.
settings.register_profile("polyvec", deadline=None)
settings.load_profile("polyvec")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run ``polyvec`` with arguments; gives its exit code and what it printed."""
    monkeypatch.setattr(MESSAGES, "_file", None)
    return Command(monkeypatch, capfd)
