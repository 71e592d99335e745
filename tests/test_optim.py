import numpy as np
import pytest

from research import optim
from research.types import UserError


def test_an_update_is_minus_the_learning_rate_times_the_gradient_without_momentum():
    tx = optim.make_optimizer(0.01)
    state = tx.init(np.float32([0.0]))
    for _ in range(2):
        update, state = tx.update(np.float32([3.0]), state)
        np.testing.assert_allclose(update, [-0.03], rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_learning_rate_that_cannot_descend_is_refused(rate):
    with pytest.raises(UserError, match="learning_rate"):
        _ = optim.make_optimizer(rate)
