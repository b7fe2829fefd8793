"""Where reports are made."""

import pytest

from tests.support.report_desk import Desk


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)
