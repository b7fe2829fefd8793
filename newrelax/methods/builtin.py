"""Every method that comes with the project, as one explicit tuple."""

from __future__ import annotations

from newrelax.methods.method import Method
from newrelax.propagations import (
    AlphaPropagation,
    Attack,
    BackwardPropagation,
    CauchyPropagation,
    HybridCauchyPropagation,
    HybridPropagation,
    IntervalBackwardPropagation,
    IntervalPropagation,
    Natural,
    RandomSlopesPropagation,
)
from newrelax.relaxations import crown, deepz, intervals
from newrelax.relaxations.base import Relaxation


def _backward(value: Relaxation, recipe: str) -> Method:
    return Method(value.name, propagation=BackwardPropagation(), relaxation=value, recipe=recipe)


def _hybrid(name: str, value: Relaxation) -> Method:
    return Method(
        name,
        summary=f"Hybrid zonotope with the lines of {value.name}.",
        propagation=HybridPropagation(),
        relaxation=value,
        recipe="hBox",
    )


def _last_layer(name: str, value: Relaxation) -> Method:
    return Method(
        name,
        summary=f"Intervals in the hidden layers, {value.name} for the margins.",
        propagation=IntervalBackwardPropagation(),
        relaxation=value,
        recipe="CROWN-IBP-R",
    )


BUILTIN: tuple[Method, ...] = (
    Method(
        "natural",
        summary="Plain training; certified with CROWN-IBP-R.",
        propagation=Natural(),
        certify_with="CROWN-IBP-R",
    ),
    Method(
        "PGD",
        summary="Adversarial training; certified with CROWN-IBP-R.",
        propagation=Attack(),
        certify_with="CROWN-IBP-R",
    ),
    Method("IBP", propagation=IntervalPropagation(), relaxation=intervals.ibp),
    _backward(crown.crown, "CROWN"),
    Method(
        "CROWN-IBP",
        summary="CROWN-IBP-R mixed into IBP, ending as IBP, which certifies it.",
        propagation=IntervalBackwardPropagation(),
        relaxation=crown.crown,
        beta=(1.0, 0.0),
        certify_with="IBP",
        recipe="CROWN-IBP",
    ),
    _last_layer("CROWN-IBP-R", crown.crown),
    _hybrid("hBox", deepz.deepz_box),
    _hybrid("hBox-Diag", deepz.deepz_diag),
    _hybrid("hBox-Diag-C", deepz.deepz_diag_c),
    _hybrid("hBox-Switch", deepz.deepz_switch),
    _hybrid("hBox-DeepZ", deepz.deepz),
    _backward(deepz.deepz, "DeepZ"),
    _backward(deepz.deepz_box, "DeepZ"),
    _backward(deepz.deepz_diag, "DeepZ"),
    _backward(deepz.deepz_diag_c, "DeepZ"),
    _backward(deepz.deepz_switch, "DeepZ"),
    _backward(deepz.deepz_soft, "DeepZ"),
    _last_layer("DeepZ-IBP-R", deepz.deepz),
    _backward(crown.crown_0, "CROWN"),
    _backward(crown.crown_0_c, "CROWN"),
    _backward(crown.crown_1, "CROWN"),
    _backward(crown.crown_1_c, "CROWN"),
    _backward(crown.crown_0_tria, "CROWN"),
    _backward(crown.crown_0_tria_c, "CROWN"),
    _backward(crown.crown_1_tria, "CROWN"),
    _backward(crown.crown_1_tria_c, "CROWN"),
    _backward(crown.crown_soft, "CROWN"),
    _last_layer("CROWN-Soft-IBP-R", crown.crown_soft.with_params(gamma=10.0)),
    Method(
        "alpha-CROWN",
        summary="CROWN with lower slopes optimised for each margin by `steps` steps.",
        propagation=AlphaPropagation(),
        relaxation=crown.crown,
    ),
    Method("IBP-Widen", propagation=IntervalPropagation(), relaxation=intervals.ibp_widen),
    Method("IBP-Round", propagation=IntervalPropagation(), relaxation=intervals.ibp_round),
    Method(
        "DeepZ-Cauchy",
        summary="DeepZ with l1 sums estimated by k Cauchy projections (an estimate, not sound).",
        propagation=CauchyPropagation(),
        relaxation=deepz.deepz,
        recipe="DeepZ",
    ),
    Method(
        "hBox-Cauchy",
        summary="hBox with l1 sums estimated by k Cauchy projections (an estimate, not sound).",
        propagation=HybridCauchyPropagation(),
        relaxation=deepz.deepz_box,
        recipe="hBox",
    ),
    Method(
        "CROWN-IBP-RandomSlope",
        summary="CROWN-IBP with random lower slopes moved by one signed step (Lee et al.).",
        propagation=RandomSlopesPropagation(),
        relaxation=crown.crown,
        beta=(1.0, 0.0),
        certify_with="IBP",
        recipe="CROWN-IBP",
    ),
)
