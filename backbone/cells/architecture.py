"""The interface of an architecture: what a search space generates and a network is built from."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable


@runtime_checkable
class Architecture(Protocol):
    """A network's structure without its size: frozen, hashable, importable without torch.

    A search space generates architectures; rewards, studies and reports handle them through this
    interface only. The size (depth and width) is chosen when a network is built::

        spec = BackboneSpec.from_architecture(architecture, depth=4, width=44)
        backbone = spec.build()

    ``BackboneSpec.from_architecture`` looks ``family`` up in ``backbone.models.backbone.FAMILIES``,
    so a new kind of architecture comes with a row there, and neither the search nor this module
    imports its network. ``backbone.cells.genotype.Genotype`` is the first kind.
    """

    @property
    def family(self) -> str:
        """Key of the row of ``FAMILIES`` that builds networks of this kind."""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for architectures that compute the same function."""

    def canonical(self) -> Self:
        """Return the representative of all architectures that compute the same function."""

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as JSON's types, with the format's name and version."""

    def spec_size(self, *, depth: int, width: int) -> str:
        """Return a size as a backbone spec writes it after the colon, such as ``4@1056``.

        Args:
            depth: repetitions of the architecture's unit per stage, at least 1.
            width: filters of the first stage.
        """
