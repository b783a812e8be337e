"""A bar that moves on a terminal, now and then a plain line where the output goes to a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from tqdm import tqdm

from sparseml.utils.text import printable

Advance = Callable[[int, str], None]
QUIET_SECONDS = 10.0


def say(text: str, shown: bool = True) -> None:
    """Print a line above whatever bar there is, at once also into a pipe.

    Where it cannot be printed, as into a pipe that nobody reads any more, nothing is from then on.
    """
    if shown:
        with _while_read(sys.stdout):
            tqdm.write(printable(text), file=sys.stdout)
            sys.stdout.flush()


@contextmanager
def _while_read(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except OSError:
        # a run is worth more than what it tells; what is left in the buffer goes there, too
        with suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())


@contextmanager
def shown_progress(
    name: str, total: int, shown: bool = True, stream: TextIO | None = None
) -> Iterator[Advance]:
    """Show how far a job is: give ``advance(done, news)`` to call as it proceeds.

    Without a terminal a line is printed every ten seconds, and at the end of what takes longer.

    :param shown: False shows nothing, for all processes but the first
    :param stream: where to, stderr by default
    """
    stream = sys.stderr if stream is None else stream
    if not shown:
        yield lambda done, news: None
    elif stream.isatty():
        with tqdm(total=total, desc=name, file=stream, leave=False, dynamic_ncols=True) as bar:

            def advance(done: int, news: str) -> None:
                bar.set_postfix_str(news, refresh=False)
                bar.update(done - bar.n)
                if done == total:
                    bar.refresh()

            yield advance
    else:
        last, told = time.monotonic(), False

        def tell(done: int, news: str) -> None:
            nonlocal last, told
            now = time.monotonic()
            if now - last >= QUIET_SECONDS or (told and done == total):
                last, told = now, True
                with _while_read(stream):
                    print(f"{name} {done}/{total}  {news}", file=stream, flush=True)

        yield tell
