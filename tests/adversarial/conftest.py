"""Programs of this directory run for milliseconds and are compiled for seconds."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def programs(quickly_compiled):
    pass
