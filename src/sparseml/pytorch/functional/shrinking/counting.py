"""How many parameters and operations a Transformer of given widths has, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Attention:
    """The widths of one attention block.

    :param qk: of queries and of keys, all heads together
    :param vo: of values, all heads together
    """

    qk: int
    vo: int


@dataclass(frozen=True)
class EncoderLayer:
    """One layer of an encoder: its self-attention and the width of its feed-forward block."""

    own: Attention
    ffn: int


@dataclass(frozen=True)
class DecoderLayer:
    """One layer of a decoder, with ``cross`` for its attention to the encoder."""

    own: Attention
    cross: Attention
    ffn: int


@dataclass(frozen=True)
class TransformerShape:
    """The widths of an encoder-decoder whose output matrix is the decoder's table of embeddings.

    :param sources: words of the encoder's vocabulary
    :param targets: words of the decoder's vocabulary
    :param encoder_width: of the encoder's residual stream
    :param decoder_width: of the decoder's
    """

    sources: int
    targets: int
    encoder_width: int
    decoder_width: int
    encoder: Sequence[EncoderLayer]
    decoder: Sequence[DecoderLayer]

    @classmethod
    def uniform(
        cls, sources: int, targets: int, width: int, ffn: int, encoder: int, decoder: int
    ) -> TransformerShape:
        """Return the shape of a Transformer as it is before anything goes.

        :param encoder: how many layers
        :param decoder: how many layers
        """
        whole = Attention(width, width)
        below, above = EncoderLayer(whole, ffn), DecoderLayer(whole, whole, ffn)
        return cls(sources, targets, width, width, [below] * encoder, [above] * decoder)

    def parameters(self) -> int:
        """Return how many parameters there are, the tied table once and positions not counted."""
        e, d = self.encoder_width, self.decoder_width
        total = self.sources * e + self.targets * d
        for layer in self.encoder:
            total += _attention_parameters(layer.own, e, e) + _ffn_parameters(layer.ffn, e) + 4 * e
        for below in self.decoder:
            total += _attention_parameters(below.own, d, d) + _attention_parameters(
                below.cross, d, e
            )
            total += _ffn_parameters(below.ffn, d) + 6 * d
        return total

    def flops(self, source: int, target: int, *, cached: bool = False) -> int:
        """Return the floating-point operations of all products of matrices in one forward pass.

        :param source: length of the source
        :param target: length of the target
        :param cached: decode word by word with a cache, otherwise all words at once
        """
        e, d = self.encoder_width, self.decoder_width
        total = 2 * target * d * self.targets
        for layer in self.encoder:
            q, v = layer.own.qk, layer.own.vo
            total += 4 * source * e * (q + v + layer.ffn) + 2 * source**2 * (q + v)
        for below in self.decoder:
            q, v, cross = below.own.qk, below.own.vo, below.cross
            seen = target * (target + 1) if cached else 2 * target**2
            total += 4 * target * d * (q + v + below.ffn) + seen * (q + v)
            total += 2 * (target * d + source * e + target * source) * (cross.qk + cross.vo)
        return total

    def shrinking(self, *, reference: bool = False) -> tuple[int, int]:
        """Return how many weights shrink on both sides, and on one; see ``rates.keep_ratio``.

        :param reference: count the biases of queries, keys and values of a single block, as the
            first implementation does
        """
        e, d, blocks = self.encoder_width, self.decoder_width, self._blocks()
        ffns = sum(layer.ffn for layer in self.encoder) + sum(layer.ffn for layer in self.decoder)
        both = sum(w * 2 * (block.qk + block.vo) for block, w in blocks)
        both += sum(2 * e * layer.ffn for layer in self.encoder)
        both += sum(2 * d * layer.ffn for layer in self.decoder)
        counted = blocks[:1] if reference else blocks
        biases = sum(2 * block.qk + block.vo for block, _ in counted)
        one = self.sources * e + self.targets * d + ffns + biases
        one += 6 * e * len(self.encoder) + 9 * d * len(self.decoder)
        return both, one

    def _blocks(self) -> list[tuple[Attention, int]]:
        """Every attention block, and the width of what it reads and writes."""
        own = [(layer.own, self.encoder_width) for layer in self.encoder]
        above = [
            (block, self.decoder_width)
            for layer in self.decoder
            for block in (layer.own, layer.cross)
        ]
        return [*own, *above]


def _attention_parameters(block: Attention, width: int, memory: int) -> int:
    q, v = block.qk, block.vo
    return (width * q + q) + (memory * q + q) + (memory * v + v) + (v * width + width)


def _ffn_parameters(ffn: int, width: int) -> int:
    return 2 * width * ffn + ffn + width
