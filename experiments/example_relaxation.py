"""A relaxation of your own, from outside the packages: copy this file anywhere, then

python -m newrelax.check Clamp --plugin example_relaxation.py
python -m newrelax.plot Clamp CROWN --html clamp.html --plugin example_relaxation.py
python -m plugin.train --method Clamp:steep=4 --plugin example_relaxation.py
"""

from torch import Tensor

from newrelax import relaxation


@relaxation("Clamp", minimum={"steep": 1.0})
def clamp(lower: Tensor, upper: Tensor, *, steep: float = 2.0) -> tuple[Tensor, float, Tensor, Tensor]:
    """Clamp: lower slope rises in a straight line from 0 to 1 around -l = u; upper the chord.

    CROWN's lower slope without its jump: with the chord's slope c = u/(u - l), it is
    steep (c - 1/2) + 1/2, cut to [0, 1]. Continuity: continuous. Sensitivity: rational.
    """
    chord = upper / (upper - lower).clamp(min=1e-12)
    slope = (steep * (chord - 0.5) + 0.5).clamp(0, 1)
    return slope, 0.0, chord, -lower * chord
