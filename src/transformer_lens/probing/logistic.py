"""Logistic regression of two classes, solved until its optimum is certain. In float64, and without scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from transformer_lens.errors import TransformerLensError

_GRADIENT = 1e-7  # where L-BFGS stops; what is left is for Newton's method
_HALVINGS = 40


class ConvergenceError(TransformerLensError, RuntimeError):
    """A fit did not reach its optimum; says how far it is, and what to change."""


@dataclass(frozen=True)
class LogisticOptions:
    """What is minimised, and when it counts as minimal.

    Attributes:
        l2_strength: half of it times the squared coefficients is added to the mean cross-entropy.
        balanced: weigh classes as if they were equally frequent.
        max_iter: iterations of L-BFGS.
        max_refinement_steps: damped steps of Newton's method after it; 0: the optimum is only checked.
        decrement_tolerance: how far from the minimum the objective may be, in nats, by Newton's estimate.

    Example:
        >>> LogisticOptions(l2_strength=0.0)
        Traceback (most recent call last):
        ValueError: l2_strength and decrement_tolerance are positive; got 0.0 and 1e-12.
    """

    l2_strength: float = 0.01
    balanced: bool = True
    max_iter: int = 200
    max_refinement_steps: int = 25
    decrement_tolerance: float = 1e-12

    def __post_init__(self) -> None:
        if not 0 < self.l2_strength < float("inf") or not 0 < self.decrement_tolerance < float("inf"):
            raise ValueError(
                f"l2_strength and decrement_tolerance are positive; got {self.l2_strength} and "
                f"{self.decrement_tolerance}."
            )
        if self.max_iter < 1 or self.max_refinement_steps < 0:
            raise ValueError(
                f"max_iter is at least 1 and max_refinement_steps at least 0; got {self.max_iter} and "
                f"{self.max_refinement_steps}."
            )


@dataclass(frozen=True, eq=False)
class Optimum:
    """A fitted logistic regression: log-odds are features · coefficients + intercept.

    Attributes:
        coefficients: one for each feature.
        intercept: not penalised.
        objective: the minimum: mean (weighted) cross-entropy in nats, and the penalty.
        gradient_inf_norm: the largest entry of the gradient there.
        newton_decrement: half of gradient · Hessian⁻¹ · gradient: how far the objective is from its minimum, in nats.
        refinement_steps: of Newton's method.
        iterations, function_evaluations: of L-BFGS.
        stop_reason: why L-BFGS stopped: "tolerance_grad", "tolerance_change", "max_iter" or "max_eval".
    """

    coefficients: Float[Tensor, "feature"]
    intercept: Float[Tensor, ""]
    objective: float
    gradient_inf_norm: float
    newton_decrement: float
    refinement_steps: int
    iterations: int
    function_evaluations: int
    stop_reason: str


def fit_logistic(
    features: Float[Tensor, "example feature"], positive: Bool[Tensor, "example"], options: LogisticOptions
) -> Optimum:
    """The coefficients that minimise the penalised cross-entropy of two classes.

    The objective is strictly convex, so there is one minimum. L-BFGS comes near it and Newton's method ends there;
    Newton's decrement (Boyd and Vandenberghe, "Convex Optimization", 9.5.1) says how near.

    Args:
        features: as they are; nothing is standardised.
        positive: which examples are of the class that positive log-odds speak for; both must occur.
        options: what is minimised.

    Raises:
        ConvergenceError: the minimum was not reached.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> found = fit_logistic(features, torch.tensor([False, True, False, True]), LogisticOptions())
        >>> round(float(found.coefficients), 3), found.newton_decrement < 1e-12
        (0.868, True)
    """
    problem = _Problem.of(features, positive, options)
    reached, optimizer = _by_gradients(problem, options.max_iter)
    return _refined(problem, reached, options, optimizer)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The objective, with derivatives, of coefficients and the intercept after them."""

    design: Float[Tensor, "example parameter"]
    sign: Float[Tensor, "example"]  # 1 for positive examples, -1 for others
    weight: Float[Tensor, "example"]  # of each example, by its class; the mean over examples is taken
    penalty: Float[Tensor, "parameter"]

    @classmethod
    def of(cls, features: Tensor, positive: Tensor, options: LogisticOptions) -> _Problem:
        wide = features.detach().double()
        share = positive.double().mean()
        weight = torch.where(positive, 0.5 / share, 0.5 / (1 - share)) if options.balanced else torch.ones(len(wide))
        penalty = torch.full((wide.shape[1] + 1,), options.l2_strength, dtype=torch.float64)
        penalty[-1] = 0.0
        design = torch.cat([wide, torch.ones(len(wide), 1, dtype=torch.float64)], 1)
        return cls(design, 2.0 * positive.double() - 1.0, weight.double() / len(wide), penalty)

    def objective(self, at: Tensor) -> Tensor:
        losses = -logsigmoid(self.sign * (self.design @ at))
        return (self.weight * losses).sum() + 0.5 * (self.penalty * at**2).sum()

    def gradient(self, at: Tensor) -> Tensor:
        surprise = torch.sigmoid(-self.sign * (self.design @ at))
        return self.penalty * at - self.design.T @ (self.weight * self.sign * surprise)

    def newton_step(self, at: Tensor) -> tuple[Tensor, float]:
        """The step of Newton's method and its decrement."""
        odds = self.design @ at
        curvature = self.weight * torch.sigmoid(odds) * torch.sigmoid(-odds)
        hessian = self.design.T @ (curvature[:, None] * self.design) + torch.diag(self.penalty)
        gradient = self.gradient(at)
        step, singular = torch.linalg.solve_ex(hessian, gradient)
        decrement = float(gradient @ step) / 2
        if bool(singular) or not decrement < float("inf"):
            raise ConvergenceError(
                "The logistic fit has no certain optimum: its Hessian cannot be inverted. Standardise the features or "
                "give a larger l2_strength."
            )
        return step, decrement


@dataclass(frozen=True)
class _Stopped:
    """What L-BFGS did."""

    iterations: int
    function_evaluations: int
    stop_reason: str


def _by_gradients(problem: _Problem, max_iter: int) -> tuple[Tensor, _Stopped]:
    """Where L-BFGS stops, from zero."""
    at = torch.zeros(problem.design.shape[1], dtype=torch.float64)
    optimizer = torch.optim.LBFGS(
        [at], max_iter=max_iter, tolerance_grad=_GRADIENT, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        at.grad = problem.gradient(at)
        return float(problem.objective(at))

    optimizer.step(closure)
    iterations, evaluations = optimizer.state[at]["n_iter"], optimizer.state[at]["func_evals"]
    if problem.gradient(at).abs().max() <= _GRADIENT:
        reason = "tolerance_grad"
    elif iterations >= max_iter:
        reason = "max_iter"
    else:
        reason = "max_eval" if evaluations >= max_iter * 5 // 4 else "tolerance_change"
    return at.detach(), _Stopped(iterations, evaluations, reason)


def _refined(problem: _Problem, at: Tensor, options: LogisticOptions, stopped: _Stopped) -> Optimum:
    """The optimum from a point near it."""
    steps, moved = 0, True
    step, decrement = problem.newton_step(at)
    while decrement > options.decrement_tolerance and steps < options.max_refinement_steps and moved:
        at, moved = _damped(problem, at, step, decrement)
        steps += int(moved)
        step, decrement = problem.newton_step(at)
    if decrement > options.decrement_tolerance:
        raise ConvergenceError(
            f"The logistic fit is {decrement:.3g} nats from its optimum after {steps} steps of Newton's method, and "
            f"decrement_tolerance is {options.decrement_tolerance:g}. Give more max_iter or max_refinement_steps, or a "
            "larger l2_strength."
        )
    return Optimum(
        coefficients=at[:-1],
        intercept=at[-1],
        objective=float(problem.objective(at)),
        gradient_inf_norm=float(problem.gradient(at).abs().max()),
        newton_decrement=decrement,
        refinement_steps=steps,
        **vars(stopped),
    )


def _damped(problem: _Problem, at: Tensor, step: Tensor, decrement: float) -> tuple[Tensor, bool]:
    """The point after a step, halved until the objective falls; or the same point, if it never does."""
    before, length = float(problem.objective(at)), 1.0
    for _ in range(_HALVINGS):
        there = at - length * step
        if float(problem.objective(there)) <= before - 0.2 * length * decrement:
            return there, True
        length /= 2
    return at, False
