"""The checker is checked: it must pass what is right, catch what is wrong, and tell a kink from an error."""

from __future__ import annotations

import numpy as np
import pytest

import minidl
from minidl.debug.gradcheck import GradcheckError, gradcheck
from minidl.errors import DtypeError, SettingError
from minidl.graph import Op
from tests.helpers import f64


class Scaled(Op):
    """x³ with a gradient that is wrong by a factor."""

    def __init__(self, factor, at=None):
        self.factor, self.at = factor, at

    def forward(self, x):
        return x * x * x

    def backward(self, g, x):
        factor = np.full(x.shape, self.factor if self.at is None else 1.0)
        if self.at is not None:
            factor[self.at] = self.factor
        return g * 3 * x * x * minidl.tensor(factor)


def test_right_gradients_pass():
    assert gradcheck(lambda x: Scaled(1.0)(x), f64([1.0, 2.0]))
    assert gradcheck(lambda x, y: (x @ y).tanh(), [f64(np.eye(2)), f64(np.ones((2, 3)))], order=2, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("factor", [1.01, 0.99, 7.0, -1.0, 0.0])
def test_wrong_gradients_fail(factor):
    with pytest.raises(GradcheckError, match="backward says"):
        gradcheck(lambda x: Scaled(factor)(x), f64([1.0, 2.0]))
    assert not gradcheck(lambda x: Scaled(factor)(x), f64([1.0, 2.0]), raise_exception=False)


def test_a_thousandth_is_caught_with_tight_tolerances():
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: Scaled(1.001)(x), f64([1.0, 2.0]), rtol=1e-6, atol=1e-7)


def test_one_wrong_element_among_many_is_found_and_named():
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x: Scaled(2.0, at=(1, 2))(x), f64(np.arange(1, 13).reshape(3, 4)))
    message = str(caught.value)
    assert "d output0[1, 2] / d input0[1, 2] at 7" in message
    assert "backward says 294" in message
    assert "the finite difference 147" in message
    assert "2 times too much" in message
    assert "look at the backward of Scaled, called at test_gradcheck.py:" in message


def test_the_op_at_fault_is_named_among_others():
    with pytest.raises(GradcheckError, match="look at the backward of Scaled, called at"):
        gradcheck(lambda x: (Scaled(1.1)(x.tanh()) * 2).sum(), f64([1.0, 2.0]))


def test_the_op_at_fault_is_named_in_second_order_too():
    class WrongTwice(Op):
        """x² whose gradient is right, but whose gradient's gradient is not."""

        def forward(self, x):
            return x * x

        def backward(self, g, x):
            return g * Doubled()(x)

    class Doubled(Op):
        def forward(self, x):
            return 2 * x

        def backward(self, g):
            return g * 2.1

    with pytest.raises(GradcheckError, match="look at the backward of Doubled"):
        gradcheck(lambda x: WrongTwice()(x).exp(), f64([0.5]), order=2)


def test_a_lost_gradient_is_nobodys_op():
    with pytest.raises(GradcheckError, match=r"each op by itself is right, so look for a detach\(\)"):
        gradcheck(lambda x: x * x.detach(), f64([1.0]))


def test_a_nan_gradient_fails():
    with pytest.raises(GradcheckError, match="backward says nan"):
        gradcheck(lambda x: Scaled(float("nan"))(x), f64([1.0]))


def test_the_second_input_is_named():
    class Wrong(Op):
        def forward(self, a, b):
            return a * b

        def backward(self, g, a, b):
            return g * b, g * a * 2

    with pytest.raises(GradcheckError, match="input1"):
        gradcheck(lambda a, b: Wrong()(a, b), [f64([3.0]), f64([2.0])])


def test_a_kink_is_called_a_kink():
    with pytest.raises(GradcheckError, match="sits on a kink: the slope is 0 to the left and 1 to the right, backward says 0"):
        gradcheck(lambda x: x.relu(), f64([1.0, 0.0]))
    with pytest.raises(GradcheckError, match="sits on a kink"):
        gradcheck(lambda x: x.max(), f64([2.0, 2.0]))


def test_an_error_at_a_smooth_place_is_not_called_a_kink():
    for factor in (0.5, 3.0):
        with pytest.raises(GradcheckError) as caught:
            gradcheck(lambda x, factor=factor: Scaled(factor)(x), f64([100.0, 1e-3, 1.0]))
        assert "kink" not in str(caught.value)


def test_rounding_on_a_straight_line_is_not_called_a_kink():
    class Steep(Op):
        def forward(self, x):
            return 1e3 * x

        def backward(self, g):
            return g * 1e3 * 1.01

    with pytest.raises(GradcheckError, match="look at the backward of Steep") as caught:
        gradcheck(lambda x: Steep()(x), f64([0.1, 7.7, 123.456]))
    assert "kink" not in str(caught.value)


def test_second_order_finds_what_first_order_cannot():
    class RightOnce(Op):
        """The gradient is right, but made of a constant: its own gradient is lost."""

        def forward(self, x):
            return x * x

        def backward(self, g, x):
            return g * 2 * x.detach()

    assert gradcheck(lambda x: RightOnce()(x), f64([1.0, 3.0]))
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: RightOnce()(x), f64([1.0, 3.0]), order=2)


def test_linear_functions_have_second_order_too():
    assert gradcheck(lambda x: x * 2 + 1, f64([1.0]), order=2)
    assert gradcheck(lambda x: x.T.reshape(4), f64([[1.0, 2.0], [3.0, 4.0]]), order=2)


def test_several_outputs():
    assert gradcheck(lambda x: (x * x, x.exp(), 5), f64([1.0, 2.0]))
    with pytest.raises(GradcheckError, match="output1"):
        gradcheck(lambda x: (x * x, Scaled(2.0)(x)), f64([1.0, 2.0]))


def test_float32_is_refused_with_the_reason():
    with pytest.raises(DtypeError, match=r"got float32 for input 0, expected float64: a finite difference in float32 has "
                                         r"only about two right digits; use x.double\(\)"):
        gradcheck(lambda x: x * x, minidl.ones(2, requires_grad=True))


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(SettingError, match="no input that requires grad"):
        gradcheck(lambda x: x * x, minidl.ones(2).double())
    x = f64([1.0])
    with pytest.raises(SettingError, match="got the same tensor twice"):
        gradcheck(lambda a, b: a * b, [x, x])
    with pytest.raises(SettingError, match="got order=3"):
        gradcheck(lambda x: x * x, f64([1.0]), order=3)
    with pytest.raises(GradcheckError, match="no output requires grad"):
        gradcheck(lambda x: x.detach() * 2, f64([1.0]))


def test_the_inputs_are_left_alone():
    x = f64([1.0, 2.0])
    array, version = x.array.copy(), x.version.count
    gradcheck(lambda x: x ** 3, x, order=2)
    np.testing.assert_array_equal(x.array, array)
    assert (x.version.count, x.grad) == (version, None)


def test_it_is_found_at_the_top():
    assert minidl.gradcheck is gradcheck
