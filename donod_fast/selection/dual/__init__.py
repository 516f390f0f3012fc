"""Choose data and parameters from one gradient interaction matrix: our reading of DualSFT (arXiv 2605.06166).

The paper has no public code, and not all of its formulas are public; this module is our interpretation. Let
g_i be the gradient of candidate i's mean loss over the chosen parameters, L the mean loss over all scored tokens of a
reference set, v its gradient, and H its Gauss–Newton matrix (below). One step θ ← θ − η g_i lowers L by

    Σ_p M_ip   with   M_ip = η v_p g_ip − (η²/2) g_ip (H g_i)_p

to second order (to first order without the last term). M is the gradient interaction matrix of data and parameters.

- Row sums Σ_p M_ip are the utility of a sample: how much a step on this sample alone lowers L.
- Column sums Σ_i M_ip are the importance of a parameter: how much its share of all these steps lowers L.

M has size samples × parameters and is never stored: one pass over the candidates computes each row sum directly and
accumulates the column sums. To first order, per-sample gradients are not formed either.

**The curvature** is the exact Gauss–Newton matrix of L, H = (1/N) Σ_s J_sᵀ S_s J_s over the N scored tokens of the
reference set, J_s the Jacobian of token s's logits with respect to all chosen parameters together and
S_s = diag(p_s) − p_s p_sᵀ. It is the Hessian without the model's second derivatives and equals the Fisher
matrix; it includes terms between different parameters and between layers. We do not use its diagonal, because that
holds little of gᵀHg: 2 to 32 % of the output layer's on 24 rows of GSM8K and Alpaca with the trained model of 5.8 M
parameters that the tests use (median 7 %), where the exact product predicts the loss after a step of η = 0.1 with a
few per cent of first order's error. The cost is one product per candidate over the whole reference set.

Modules in the order of use: ``layers.py`` chooses the parameters, ``error_signals.py`` computes the error signals of
the output layer tile by tile, ``backward.py`` runs a batch, ``objective.py`` makes L's gradient, ``gauss_newton.py``
multiplies by H, ``interactions.py`` sums rows and columns, ``choosing.py`` takes the best of both, ``run.py`` writes a
folder.
"""

from donod_fast.selection.dual.choosing import best_rows, parameter_masks
from donod_fast.selection.dual.interactions import Interactions, interact
from donod_fast.selection.dual.layers import Chosen, choose_layers
from donod_fast.selection.dual.objective import Objective, reference_objective
from donod_fast.selection.dual.run import DualOutcome, DualSettings, dual

__all__ = [
    "Chosen",
    "DualOutcome",
    "DualSettings",
    "Interactions",
    "Objective",
    "best_rows",
    "choose_layers",
    "dual",
    "interact",
    "parameter_masks",
    "reference_objective",
]
