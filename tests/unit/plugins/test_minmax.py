"""minmax: the extremes, per channel, whatever the scheme."""

import numpy as np
import pytest
from onnxq_plugins.minmax import MinMax

from onnxq.scheme import Scheme


@pytest.mark.parametrize("symmetric", [True, False])
def test_extremes_per_channel(symmetric):
    minmax = MinMax()
    minmax.update(np.array([[1, -2], [5, 6]], np.float32))
    minmax.update(np.array([[3], [4]], np.float32))
    low, high = minmax.range(Scheme(8, symmetric, "per_tensor"))
    assert low.tolist() == [-2, 4]
    assert high.tolist() == [3, 6]


def test_negative_zero_does_not_depend_on_the_order():
    signs = []
    for values in ([0.0, -0.0], [-0.0, 0.0]):
        minmax = MinMax()
        for value in values:
            minmax.update(np.array([[value]], np.float32))
        signs.append([bool(np.signbit(bound[0])) for bound in minmax.range(Scheme(8, True, "per_tensor"))])
    assert signs == [[False, False]] * 2
