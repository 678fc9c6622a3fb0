"""The paper's controller: an LSTM that makes a genotype's decisions, trained with PPO.

Zoph et al. 2018, section 3.1 and appendix A.2. What the paper leaves open is chosen here: Adam;
an own softmax per decision; the previous decision's embedding as input, shared by decisions of one
kind; probability ratios clipped decision by decision.
"""

# B sequences, T decisions, O options (as many as any decision has), U units

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbone.io.runtime import limited_threads
from search.config import ControllerConfig
from search.randomness import stream
from search.space import Choice, SearchSpace

NEVER = -1e9
"""Logit of an option that a decision does not have: finite, so that gradients are too."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A sequence of decisions and what it was worth."""

    decisions: tuple[int, ...]
    reward: float


class Policy(nn.Module):
    """Probabilities of each decision, given those before it.

    Computes in double precision: it is small, and a rounding difference must not change a draw.
    """

    def __init__(
        self, choices: Sequence[Choice], config: ControllerConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        units, steps = config.num_units, len(choices)
        most = max(choice.num_options for choice in choices)
        kinds = sorted({choice.kind for choice in choices})

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, dtype=torch.float64))

        # Made without values and not by torch's global generator; every weight is drawn below.
        self.lstm = nn.LSTM(units, units, batch_first=True, dtype=torch.float64, device="meta")
        self.lstm.to_empty(device="cpu")
        self.start = parameter(units)
        self.embedding = parameter(len(kinds) * most, units)
        self.weight_tuo = parameter(steps, units, most)
        self.bias_to = parameter(steps, most)
        with torch.no_grad():
            for weights in self.parameters():
                weights.uniform_(-config.initial_range, config.initial_range, generator=generator)
        self._first_row_t = torch.tensor([kinds.index(choice.kind) * most for choice in choices])
        options = torch.tensor([choice.num_options for choice in choices])
        self._absent_to = torch.arange(most) >= options[:, None]

    def forward(self, decisions_bt: Tensor) -> Tensor:
        """Return the log-probabilities of all options at each of a sequence's decisions.

        Args:
            decisions_bt: (B, T), int64: option numbers.

        Returns:
            (B, T, O), about ``NEVER`` for options that a decision does not have.
        """
        start = self.start.expand(len(decisions_bt), 1, -1)
        embedded = self.embedding[decisions_bt[:, :-1] + self._first_row_t[:-1]]
        hidden_btu = self.lstm(torch.cat([start, embedded], dim=1))[0]
        logits = torch.einsum("btu,tuo->bto", hidden_btu, self.weight_tuo) + self.bias_to
        return logits.masked_fill(self._absent_to, NEVER).log_softmax(dim=-1)

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> tuple[int, ...]:
        """Draw one sequence of decisions."""
        decisions: list[int] = []
        state: tuple[Tensor, Tensor] | None = None
        inputs: Tensor = self.start
        for step in range(len(self.bias_to)):
            hidden, state = self.lstm(inputs.view(1, 1, -1), state)
            logits = hidden.flatten() @ self.weight_tuo[step] + self.bias_to[step]
            probabilities = logits.masked_fill(self._absent_to[step], NEVER).softmax(dim=0)
            decision = int(torch.multinomial(probabilities, 1, generator=generator))
            decisions.append(decision)
            inputs = self.embedding[decision + self._first_row_t[step]]
        return tuple(decisions)


class Controller:
    """A policy that learns from batches of rewarded proposals.

    Its state is a function of the seed and the batches learnt, and the proposal for a trial one
    of that state and the trial's number; nothing else is random.
    """

    def __init__(self, space: SearchSpace, config: ControllerConfig, *, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.policy = Policy(space.choices, config, stream("controller", seed))
        self.num_batches = 0
        """Batches learnt."""
        self.baseline: float | None = None
        """Moving average of the rewards learnt; None before the first."""
        self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=config.learning_rate)

    @classmethod
    def replay(
        cls,
        space: SearchSpace,
        config: ControllerConfig,
        *,
        seed: int,
        history: Sequence[Proposal],
    ) -> Controller:
        """Return the controller that has learnt all complete batches of a history."""
        controller = cls(space, config, seed=seed)
        size = config.batch_size
        for end in range(size, len(history) + 1, size):
            controller.learn(history[end - size : end])
        return controller

    def propose(self, number: int) -> tuple[int, ...]:
        """Return the decisions for the trial of that number."""
        with limited_threads(1):
            return self.policy.sample(stream("proposal", self.seed, number))

    def learn(self, batch: Iterable[Proposal]) -> None:
        """Improve the policy by one batch, taken as drawn from the policy as it is now.

        With several workers a proposal may come from a slightly older policy; PPO's clipping is
        what bounds the step either way.
        """
        batch = list(batch)
        self.num_batches += 1
        if not batch:
            return
        decisions_bt = torch.tensor([proposal.decisions for proposal in batch])
        rewards = [proposal.reward for proposal in batch]
        # The first batch has no past rewards; its own mean is the nearest there is.
        baseline = sum(rewards) / len(rewards) if self.baseline is None else self.baseline
        advantage_b = torch.tensor(rewards, dtype=torch.float64) - baseline
        with limited_threads(1):
            with torch.no_grad():
                before_bt = _chosen(self.policy(decisions_bt), decisions_bt)
            for _ in range(self.config.epochs_per_update):
                self._optimizer.zero_grad()
                torch.autograd.backward(self._loss(decisions_bt, before_bt, advantage_b))
                self._optimizer.step()
        for reward in rewards:
            weight = self.config.baseline_weight
            baseline = weight * baseline + (1 - weight) * reward
        self.baseline = baseline

    def _loss(self, decisions_bt: Tensor, before_bt: Tensor, advantage_b: Tensor) -> Tensor:
        log_p_bto = self.policy(decisions_bt)
        ratio_bt = (_chosen(log_p_bto, decisions_bt) - before_bt).exp()
        gain = clipped_gain(ratio_bt, advantage_b[:, None], clip=self.config.clip)
        entropy = -(log_p_bto.exp() * log_p_bto).sum(dim=-1)
        return -(gain + self.config.entropy_weight * entropy).mean()


def clipped_gain(ratio: Tensor, advantage: Tensor, *, clip: float) -> Tensor:
    """PPO's objective per decision: no gain from a ratio beyond ``1 - clip`` to ``1 + clip``."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def _chosen(log_p_bto: Tensor, decisions_bt: Tensor) -> Tensor:
    return log_p_bto.gather(2, decisions_bt[:, :, None]).squeeze(2)
