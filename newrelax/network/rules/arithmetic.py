"""Sums, products, quotients and powers, of steps and constants."""

from __future__ import annotations

from typing import Any

from newrelax.network.build import Builder, Traced
from newrelax.network.operators.rule import operator
from newrelax.relaxations.activation import RSQRT, SQRT, power, real_power


@operator("aten.add.Tensor", "aten.add.Scalar", bounded="exact affine")
def add(build: Builder, x: Any, y: Any, alpha: Any = 1) -> Traced:
    """x + alpha·y."""
    if isinstance(x, Traced) and isinstance(y, Traced):
        return build.add(x, y if alpha == 1 else build.alike_scaled(y, alpha))
    if isinstance(x, Traced):
        return build.shift(x, y if alpha == 1 else y * alpha)
    return build.shift(y if alpha == 1 else build.alike_scaled(y, alpha), x)


@operator("aten.sub.Tensor", "aten.sub.Scalar", bounded="exact affine")
def subtract(build: Builder, x: Any, y: Any, alpha: Any = 1) -> Traced:
    """x − alpha·y."""
    if isinstance(x, Traced) and isinstance(y, Traced):
        return build.add(x, y if alpha == 1 else build.alike_scaled(y, alpha), sign=-1)
    if isinstance(x, Traced):
        return build.shift(x, -y if alpha == 1 else -y * alpha)
    return build.shift(build.negate(y if alpha == 1 else build.alike_scaled(y, alpha)), x)


@operator("aten.rsub.Scalar", "aten.rsub.Tensor", bounded="exact affine")
def subtract_from(build: Builder, x: Any, y: Any, alpha: Any = 1) -> Traced:
    """y − alpha·x."""
    found: Traced = subtract.function(build, y, x, alpha)
    return found


@operator("aten.neg.default", bounded="exact affine")
def negate(build: Builder, x: Traced) -> Traced:
    """−x."""
    return build.negate(x)


@operator("aten.mul.Tensor", "aten.mul.Scalar", bounded="planes")
def multiply(build: Builder, x: Any, y: Any) -> Traced:
    """x·y: exact affine with a constant, McCormick's planes for two steps, the square's lines for one with itself."""
    if isinstance(x, Traced) and isinstance(y, Traced):
        return build.smooth(x, power(2)) if x == y else build.multiply(x, y)
    return build.scale(x, y) if isinstance(x, Traced) else build.scale(y, x)


@operator("aten.div.Tensor", "aten.div.Scalar", bounded="planes")
def divide(build: Builder, x: Any, y: Any) -> Traced:
    """x / y: exact affine with a constant divisor, else a product with the reciprocal."""
    if not isinstance(y, Traced):
        return build.scale(x, y, divides=True)
    inverse = build.reciprocal(y)
    return build.multiply(x, inverse) if isinstance(x, Traced) else build.scale(inverse, x)


@operator("aten.pow.Tensor_Scalar", bounded="lines")
def raise_to(build: Builder, x: Traced, exponent: Any) -> Traced:
    """x to a constant power; x above 0 unless that is a whole number."""
    if exponent == 1:
        return x
    if exponent in (0.5, -0.5):
        return build.smooth(x, SQRT if exponent > 0 else RSQRT)
    if exponent == -1:
        return build.reciprocal(x)
    if exponent == 0:
        build.refuse("with the exponent 0 is 1 everywhere: leave it out")
    if exponent != int(exponent):
        return build.smooth(x, real_power(exponent)).at_least(0.0)
    found = build.smooth(x, power(abs(int(exponent))))
    found = found.at_least(0.0) if exponent % 2 == 0 or x.floor >= 0 else found
    return found if exponent > 0 else build.reciprocal(found)


@operator("aten.addcmul.default", bounded="planes")
def add_product(build: Builder, x: Any, y: Any, z: Any, value: Any = 1) -> Traced:
    """x + value·y·z."""
    product = multiply.function(build, y, z) if isinstance(y, Traced) or isinstance(z, Traced) else y * z
    return add.function(build, x, product, value)  # type: ignore[no-any-return]


RULES = (add, subtract, subtract_from, negate, multiply, divide, raise_to, add_product)
