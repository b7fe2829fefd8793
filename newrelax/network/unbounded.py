"""Why some of torch's operators have no bounds: said where a network with one is refused."""

from __future__ import annotations

_COMPARES = "compares values that depend on the input, where the network jumps: write it with relu, clamp, maximum or minimum"
_JUMPS = "jumps, which no line bounds well: bounds need a continuous function"
_CHOOSES = "chooses by the order of values that depend on the input: write it with amax or a max pool"
_READS = "reads a value: the network depends on values in a way that no graph has; write it with torch functions"
_RANDOM = "draws random numbers in evaluation mode: bounds need a function"
_SEES = "uses the batch's own statistics: examples see each other, and nothing of one can be bounded alone"

_REASONS: dict[str, str] = {
    name: reason
    for names, reason in (
        ("gt lt ge le eq ne isnan isinf logical_and logical_or logical_not isclose", _COMPARES),
        ("sign sgn round floor ceil trunc heaviside frac fmod remainder floor_divide signbit hardshrink", _JUMPS),
        (
            "argmax argmin topk sort argsort kthvalue median mode nonzero bucketize searchsorted unique cummax cummin aminmax",
            _CHOOSES,
        ),
        ("item _local_scalar_dense", _READS),
        ("dropout native_dropout bernoulli rand randn rand_like randn_like multinomial normal", _RANDOM),
        ("_native_batch_norm_legit native_batch_norm _native_batch_norm_legit_functional", _SEES),
    )
    for name in names.split()
}


def reason(operator: str) -> str | None:
    """Why the operator of that name, "aten.gt.Scalar", has no bounds; None for what nobody has thought of yet."""
    parts = operator.split(".")
    return _REASONS.get(parts[1]) if len(parts) == 3 else None
