"""Blocks that many configurations share, found by the grammar of their symbols.

SEQUITUR is of Nevill-Manning and Witten, "Identifying hierarchical structure in sequences" (JAIR
1997); that its rules may be blocks is of Guan, Shen and Lim, "Wootz" (PLDI 2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

Symbols = tuple[Hashable, ...]


class Rule:
    """A rule of a grammar: what its name stands for.

    :ivar uses: how many symbols of the grammar name it
    """

    def __init__(self) -> None:
        self.uses = 0
        self.guard = _Symbol(self)
        self.guard.before = self.guard.after = self.guard

    @property
    def body(self) -> list[Hashable]:
        """Return its symbols in order: terminals as they were given, and rules."""
        found, symbol = [], self.guard.after
        while symbol is not self.guard:
            found.append(symbol.value)
            symbol = symbol.after
        return found

    def expanded(self) -> Symbols:
        """Return the terminals that it stands for."""
        parts = (one.expanded() if isinstance(one, Rule) else (one,) for one in self.body)
        return tuple(symbol for part in parts for symbol in part)


class _Symbol:
    """A place in the body of a rule; the guard of a rule closes it to a ring."""

    __slots__ = ("after", "before", "value")

    def __init__(self, value: Hashable) -> None:
        self.value = value
        self.before: _Symbol = self
        self.after: _Symbol = self

    @property
    def is_guard(self) -> bool:
        return isinstance(self.value, Rule) and self.value.guard is self


class Grammar:
    """The grammar that SEQUITUR infers, symbol by symbol.

    After every :meth:`add` no pair of neighbours occurs twice without overlap, and each rule but
    the first is used twice or more.
    """

    def __init__(self, symbols: Iterable[Hashable] = ()) -> None:
        self.start = Rule()
        self._pairs: dict[tuple[Hashable, Hashable], _Symbol] = {}
        for symbol in symbols:
            self.add(symbol)

    def add(self, symbol: Hashable) -> None:
        """Append a terminal."""
        last = self.start.guard.before
        self._insert(last, symbol)
        if not last.is_guard:
            self._check(last)

    def rules(self) -> list[Rule]:
        """Return the rules that are used, the start first."""
        found = [self.start]
        for rule in found:
            for one in rule.body:
                if isinstance(one, Rule) and one not in found:
                    found.append(one)
        return found

    def _insert(self, place: _Symbol, value: Hashable) -> _Symbol:
        new = _Symbol(value)
        if isinstance(value, Rule):
            value.uses += 1
        self._join(new, place.after)
        self._join(place, new)
        return new

    def _join(self, left: _Symbol, right: _Symbol) -> None:
        if left.after is not left:
            self._forget(left)
            # of three equal neighbours only one pair is known, as they overlap; it may be this one
            for one, first in ((right, right), (left, left.before)):
                alone = one.before is one or one.after is one or one.is_guard
                if not alone and one.before.value == one.value == one.after.value:
                    self._pairs[first.value, first.after.value] = first
        left.after, right.before = right, left

    def _forget(self, left: _Symbol) -> None:
        """Let the pair that begins here no longer be the one that is known."""
        if not left.is_guard and not left.after.is_guard:
            pair = left.value, left.after.value
            if self._pairs.get(pair) is left:
                del self._pairs[pair]

    def _remove(self, symbol: _Symbol) -> None:
        self._join(symbol.before, symbol.after)
        self._forget(symbol)
        if isinstance(symbol.value, Rule):
            symbol.value.uses -= 1

    def _check(self, left: _Symbol) -> bool:
        """Keep the pair that begins here unique; tell whether it was replaced."""
        if left.is_guard or left.after.is_guard:
            return False
        pair = left.value, left.after.value
        known = self._pairs.setdefault(pair, left)
        if known is left:
            return False
        if known.after is left or left.after is known:
            return False  # they overlap
        self._match(left, known)
        return True

    def _match(self, left: _Symbol, known: _Symbol) -> None:
        first, second = known.before, known.after.after
        if first.is_guard and second is first and first.value is not self.start:
            rule = first.value
            assert isinstance(rule, Rule)
            self._replace(left, rule)
        else:
            rule = Rule()
            self._insert(self._insert(rule.guard, left.value), left.after.value)
            self._replace(known, rule)
            self._replace(left, rule)
            self._pairs[rule.guard.after.value, rule.guard.before.value] = rule.guard.after
        for symbol in (rule.guard.after, rule.guard.before):
            if isinstance(symbol.value, Rule) and symbol.value.uses == 1:
                self._inline(symbol)

    def _replace(self, left: _Symbol, rule: Rule) -> None:
        """Put a rule in the place of the pair that begins here."""
        before = left.before
        self._remove(left.after)
        self._remove(left)
        new = self._insert(before, rule)
        if not self._check(before):
            self._check(new)

    def _inline(self, symbol: _Symbol) -> None:
        """Put the body of a rule that is used but here in its place."""
        rule, before, after = symbol.value, symbol.before, symbol.after
        assert isinstance(rule, Rule)
        first, last = rule.guard.after, rule.guard.before
        self._forget(before)
        self._forget(symbol)
        self._join(before, first)
        self._join(last, after)
        for left in (before, last):
            if not left.is_guard and not left.after.is_guard:
                self._pairs[left.value, left.after.value] = left


def shared_blocks(sequences: Sequence[Sequence[Hashable]]) -> list[Symbols]:
    """Return runs of two symbols or more that cost no reuse if they are tuned as one block.

    A rule qualifies that occurs more than once, and as often as any of its parts. Runs never span
    two sequences.

    :return: the longest first, then by text
    """
    joined: list[Hashable] = []
    for number, sequence in enumerate(sequences):
        joined += [*sequence, _Separator(number)]
    grammar = Grammar(joined)
    rules = grammar.rules()
    terminals = Counter(joined)
    expanded = {rule: rule.expanded() for rule in rules}
    occurs = _occurrences(grammar.start, rules)
    found = []
    for rule in rules[1:]:
        inner = [occurs[one] for one in rule.body if isinstance(one, Rule)]
        parts = max([*inner, *(terminals[one] for one in expanded[rule])])
        if occurs[rule] > 1 and occurs[rule] >= parts:
            found.append(expanded[rule])
    return sorted(found, key=lambda block: (-len(block), str(block)))


def cover(sequence: Sequence[Hashable], blocks: Iterable[Symbols]) -> list[Symbols]:
    """Return a sequence from left to right as the longest blocks that fit; others stand alone."""
    longest = sorted(blocks, key=lambda block: (-len(block), str(block)))
    found: list[Symbols] = []
    place = 0
    while place < len(sequence):
        rest = tuple(sequence[place:])
        block = next((one for one in longest if rest[: len(one)] == one), rest[:1])
        found.append(block)
        place += len(block)
    return found


class _Separator:
    def __init__(self, number: int) -> None:
        self.number = number


def _occurrences(start: Rule, rules: Sequence[Rule]) -> dict[Rule, int]:
    """Return how often each rule occurs in all that the start stands for."""
    counts = dict.fromkeys(rules, 0)

    def count(rule: Rule) -> None:
        counts[rule] += 1
        for one in rule.body:
            if isinstance(one, Rule):
                count(one)

    count(start)
    return counts
