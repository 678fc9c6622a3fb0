"""Policy network of the paper's controller: an LSTM over decisions, trained with PPO.

Zoph et al. 2018, section 3.1 and appendix A.2. Choices that the paper leaves open: Adam; a softmax
per decision; the previous decision's embedding as input, shared by decisions of one kind;
probability ratios clipped per decision.
"""

# B sequences, T decisions, O options (as many as any decision has), U units

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbone.io.runtime import limited_threads
from search.space import Choice

MASKED_LOGIT = -1e9
"""Logit of an option that a decision does not have: finite, so that gradients stay finite."""


class Policy(nn.Module):
    """Probabilities of each decision given the decisions before it.

    Computes in double precision, since a rounding difference must not change a draw.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        *,
        num_units: int,
        initial_range: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        units, steps = num_units, len(choices)
        max_options = max(choice.num_options for choice in choices)
        kinds = sorted({choice.kind for choice in choices})

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, dtype=torch.float64))

        # On the meta device, to leave torch's global generator alone; all weights are drawn below.
        self.lstm = nn.LSTM(units, units, batch_first=True, dtype=torch.float64, device="meta")
        self.lstm.to_empty(device="cpu")
        self.start = parameter(units)
        self.embedding = parameter(len(kinds) * max_options, units)
        self.weight_tuo = parameter(steps, units, max_options)
        self.bias_to = parameter(steps, max_options)
        with torch.no_grad():
            for weights in self.parameters():
                weights.uniform_(-initial_range, initial_range, generator=generator)
        first_row = [kinds.index(choice.kind) * max_options for choice in choices]
        self._first_row_t = torch.tensor(first_row)
        options = torch.tensor([choice.num_options for choice in choices])
        self._absent_to = torch.arange(max_options) >= options[:, None]

    def forward(self, decisions_bt: Tensor) -> Tensor:
        """Compute the log-probabilities of all options at every decision of the sequences.

        Args:
            decisions_bt: (B, T), int64: option indices.

        Returns:
            (B, T, O), close to ``MASKED_LOGIT`` for options that a decision does not have.
        """
        start = self.start.expand(len(decisions_bt), 1, -1)
        embedded = self.embedding[decisions_bt[:, :-1] + self._first_row_t[:-1]]
        hidden_btu = self.lstm(torch.cat([start, embedded], dim=1))[0]
        logits = torch.einsum("btu,tuo->bto", hidden_btu, self.weight_tuo) + self.bias_to
        return logits.masked_fill(self._absent_to, MASKED_LOGIT).log_softmax(dim=-1)

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> tuple[int, ...]:
        """Draw one sequence of decisions."""
        with limited_threads(1):
            return self._sample(generator)

    def _sample(self, generator: torch.Generator) -> tuple[int, ...]:
        decisions: list[int] = []
        state: tuple[Tensor, Tensor] | None = None
        inputs: Tensor = self.start
        for step in range(len(self.bias_to)):
            hidden, state = self.lstm(inputs.view(1, 1, -1), state)
            logits = hidden.flatten() @ self.weight_tuo[step] + self.bias_to[step]
            probabilities = logits.masked_fill(self._absent_to[step], MASKED_LOGIT).softmax(dim=0)
            decision = int(torch.multinomial(probabilities, 1, generator=generator))
            decisions.append(decision)
            inputs = self.embedding[decision + self._first_row_t[step]]
        return tuple(decisions)


class PpoTrainer:
    """Train a policy with PPO and Adam; Adam's moments persist between updates."""

    def __init__(
        self, policy: Policy, *, learning_rate: float, clip: float, entropy_weight: float
    ) -> None:
        self.policy = policy
        self._clip = clip
        self._entropy_weight = entropy_weight
        self._optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate)

    def update(
        self,
        decisions: Sequence[Sequence[int]],
        advantages: Sequence[float],
        *,
        num_steps: int,
    ) -> None:
        """Take optimizer steps on one batch, treated as drawn from the current policy.

        Args:
            decisions: one sequence of option indices per genotype.
            advantages: reward minus baseline of each genotype.
            num_steps: number of optimizer steps.
        """
        decisions_bt = torch.tensor(decisions)
        advantage_b = torch.tensor(advantages, dtype=torch.float64)
        with limited_threads(1):
            with torch.no_grad():
                before_bt = _chosen(self.policy(decisions_bt), decisions_bt)
            for _ in range(num_steps):
                self._optimizer.zero_grad()
                torch.autograd.backward(self.loss(decisions_bt, before_bt, advantage_b))
                self._optimizer.step()

    def loss(self, decisions_bt: Tensor, before_bt: Tensor, advantage_b: Tensor) -> Tensor:
        """Compute PPO's loss with the entropy bonus.

        Args:
            decisions_bt: (B, T), int64: option indices.
            before_bt: (B, T): log-probabilities of these decisions before the update.
            advantage_b: (B,): reward minus baseline.

        Returns:
            A scalar.
        """
        log_p_bto = self.policy(decisions_bt)
        ratio_bt = (_chosen(log_p_bto, decisions_bt) - before_bt).exp()
        gain = clipped_gain(ratio_bt, advantage_b[:, None], clip=self._clip)
        entropy = -(log_p_bto.exp() * log_p_bto).sum(dim=-1)
        return -(gain + self._entropy_weight * entropy).mean()


def clipped_gain(ratio: Tensor, advantage: Tensor, *, clip: float) -> Tensor:
    """Compute PPO's objective per decision: no gain from ratios outside [1 - clip, 1 + clip]."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def _chosen(log_p_bto: Tensor, decisions_bt: Tensor) -> Tensor:
    return log_p_bto.gather(2, decisions_bt[:, :, None]).squeeze(2)
