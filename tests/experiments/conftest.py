"""Nets of this directory are trained for a moment and compiled for seconds.

Whether two programs agree to the bit is asked of the optimized ones too: `training/test_epoch.py`.
"""

import pytest


@pytest.fixture(autouse=True, scope="module")
def programs(quickly_compiled):
    pass
