"""Certificates that hold for a network as it runs: in floating point, in any order of summation.

**Theorem.** Let a network be made of the steps that `newrelax.rigorous.rounding` covers, and let it run in IEEE arithmetic
with unit roundoff u (2⁻²⁴ for float32), rounding to nearest, underflow gradual or to zero, under the hypotheses below. Let L
be what `RigorousNetwork.lower_bounds` gives for a matrix C and a box of inputs. Then, for every input of the box in the
network's own float type, the outputs ẑ that the network computes satisfy C·ẑ ≥ L, in exact arithmetic; so a margin above zero
means that the computed logits are in that order, since comparisons round nothing. The same L holds for the real-valued
network.

*Proof.* (1) A sum of n products and a constant, in any order and with or without fused multiply-adds, puts at most n + 1
factors 1 + δ, |δ| ≤ u, on each of its terms, so that it errs by no more than γ(n + 1)·(|W||x̂| + |b|), γ(k) = ku/(1 − ku)
(Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1 and lemma 3.1). Terms that are exactly zero round
nothing, so n counts the inputs that may differ from zero. Hence every step of the run is x̂ₖ = fₖ(x̂ before) + δₖ with the
*real* function fₖ and |δₖ| ≤ noiseₖ: the run is a real-valued network with a perturbation of its own at every step. (2)
Bounds of that perturbed network: an interval step adds noiseₖ to its radius; a back-substituted row A of step k loses
|A|·noiseₖ. Lines above and below a ReLU may have any slopes in [0, 1], whoever found them: offsets are made for the slopes at
hand, so that slopes are hints and no more. (3) Bounds are computed in float64 with v = 2⁻⁵³. Each is a sum of products whose
terms meet at most N = `Plan.depth` factors 1 + δ, |δ| ≤ v, N being the most features of any step, twice the number of steps
and some more; so what is computed at step k differs from what is meant by at most γ(N)·|A|·Kₖ, Kₖ being the step's terms in
absolute value over the box. noiseₖ includes γ(N)·Kₖ. In a back-substitution, A·W as computed stands for coefficients that
differ from it by γ(N)·|A||W|, and the difference times the bounds of x is again below γ(N)·|A|·Kₖ. Sums of what is not
negative are relatively exact, and are multiplied by 1 + 2⁻²⁰. ∎

*Hypotheses.* Convolutions and matrix products sum products: Winograd's and Fourier's algorithms (which cuDNN may choose for
float32 unless `torch.backends.cudnn.enabled` is off, and NNPACK for large batches), Strassen's, and products in TF32,
bfloat16 or float16 are not covered; `newrelax.precision.full_precision` turns the latter off. The run computes the model's
operators as they stand; a compiler that folds one into another's weights makes another network. ReLU, maxima, comparisons and
moves are exact. Numbers in the code are rounded to nearest when they meet a tensor. Batch normalisation runs with running
statistics, by any of the usual formulas, with a reciprocal root that is right to four units. No value overflows: where one
could, L is −∞. Bounds are computed on a CPU, in float64 by sums of products.

Why it is wanted: Jia and Rinard, "Exploiting verified neural networks via floating point numerical error" (SAS 2021), break
networks that exact verifiers had certified. Noise as part of the abstract network: Singh et al., "Fast and effective
robustness certification" (NeurIPS 2018).
"""

from newrelax.rigorous.network import RigorousNetwork

__all__ = ["RigorousNetwork"]
