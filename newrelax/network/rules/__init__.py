"""What operators of torch become: the built-in rules, one family a file."""

from newrelax.network.operators.rule import Rule
from newrelax.network.rules import activations, arithmetic, composed, movers, places, pooling, weighted

BUILTIN_RULES: tuple[Rule, ...] = (
    *weighted.RULES,
    *arithmetic.RULES,
    *activations.RULES,
    *pooling.RULES,
    *movers.RULES,
    *places.RULES,
    *composed.RULES,
)
