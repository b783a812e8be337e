"""How second-order methods see a pattern: runs of inputs within the blocks of a Fisher matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparseml.pytorch.functional.block_layout import BlockLayout, block_layout
from sparseml.pytorch.functional.patterns import NM, Pattern, PerTensor

__all__ = ["BlockRule"]


@dataclass(frozen=True)
class BlockRule:
    """How weights are cut into blocks, scored and compensated.

    :param block_size: of the Fisher matrix
    :param layout: ``padded``, ``divisor`` or ``row``
    :param group: weights that are removed together, or of which N:M is kept
    :param nm: ``(N, M)``, to keep N of M
    :param eliminate: score by eliminating one after another (CAP), not each alone (OBS)
    :param update: ``joint`` or ``simultaneous``
    :param spread: whether a unit may have parts in several blocks
    """

    block_size: int
    layout: str = "padded"
    group: int = 1
    nm: tuple[int, int] | None = None
    eliminate: bool = False
    update: str = "joint"
    spread: bool = False

    def fitted(self, pattern: Pattern) -> BlockRule:
        """Return the rule for a pattern.

        Units that are runs of consecutive inputs are never torn apart by blocks; of others each
        block holds a part, or several.

        :raises ValueError: with ``eliminate``, for units that are no such runs: the order in which
            a block is eliminated would depend on all others
        """
        if pattern.run < 1 and not self.eliminate and isinstance(pattern, PerTensor):
            return replace(self, spread=True)
        if pattern.run < 1:
            raise ValueError(
                f"units of {pattern} masks are no runs of consecutive inputs of one output, so "
                "they lie in no single block of the Fisher matrix"
            )
        nm = (pattern.keep, pattern.group) if isinstance(pattern, NM) else None
        return replace(self, group=pattern.run, nm=nm)

    @property
    def together(self) -> int:
        """How many weights go at once."""
        return 1 if self.nm else self.group

    def cut(self, shape: Sequence[int]) -> BlockLayout:
        """Return the blocks of a weight of this shape, ``[out, in, *kernel]``."""
        return block_layout(shape, self.block_size, self.layout, group=self.group)
