"""Starting the runs of a chain, one after the other, until all are done or one has failed."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sparseml.gap.child import Child, check_sparsity, measured
from sparseml.gap.manifest import Manifest
from sparseml.gap.merge import Rest, merge
from sparseml.gap.plan import Description, Link
from sparseml.pytorch.utils.saving.files import CheckpointError
from sparseml.run.errors import RunError, one_line
from sparseml.run.files import atomic_text
from sparseml.utils.locks import FolderLock
from sparseml.utils.paths import file_digest

_TAIL = 5
MERGED = "merged"


@dataclass
class Chain:
    """A chain in its workspace.

    :param child: how each run is started
    :param workers: runs of a group that go on at the same time
    :param rest: who owns what no worker of a group has grown
    :param say: told how far it is
    """

    description: Description
    links: Sequence[Link]
    workspace: Path
    child: Child
    workers: int = 1
    rest: Rest = "first"
    say: Callable[[str], None] = print
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self) -> None:
        """Tell what would be started; nothing is written."""
        for together, parent in self._groups():
            for link in together:
                epochs = f"{link.epochs} epoch{'s' * (link.epochs != 1)}"
                rate = "" if link.rate is None else f", lr {link.rate:g}"
                self.say(f"{link.name}: {epochs}, seed {link.seed}{rate}")
                self.say(f"  {shlex.join(self._command(link, parent))}")

    def run(self, resume: bool = False, since: int = 0) -> None:
        """Start all runs that are not done.

        :param resume: go on with what the workspace holds
        :param since: the step to go on from; none before it is started
        :raises RunError: as soon as a run fails, or leaves what it should not, and if one before
            ``since`` is not done
        :raises FolderInUseError: if another process is at work in the workspace
        """
        for together, parent in self._groups():
            for link in together:
                self._command(link, parent)  # or what is wrong with it would be told late
        lock = FolderLock(self.workspace)
        try:
            self._run(Manifest(self.workspace, self.links, resume), since)
        finally:
            lock.release()

    def _run(self, manifest: Manifest, since: int) -> None:
        for link in self.links:
            if link.group < since and not manifest.done(link.name):
                state = manifest.entries[link.name]["state"]
                raise RunError(f"{link.name} is {state}, so that step {since} cannot go on from it")
        manifest.write()
        for together, parent in self._groups():
            with ThreadPoolExecutor(self.workers) as pool:
                started = [
                    pool.submit(self._one, link, number, parent, manifest)
                    for number, link in enumerate(together)
                ]
                try:
                    for one in started:
                        one.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)  # those that run are waited for
                    raise
            if len(together) > 1:
                self._merge(together)

    def _groups(self) -> Iterator[tuple[list[Link], Path | None]]:
        """Yield the runs that may go on at the same time, and the weights that they start from."""
        parent: Path | None = None
        for _, group in itertools.groupby(self.links, lambda link: link.group):
            together = list(group)
            yield together, parent
            parent = self._left_by(together)

    def _one(self, link: Link, number: int, parent: Path | None, manifest: Manifest) -> None:
        with self._lock:
            if manifest.done(link.name):
                self.say(f"{link.name}: done before")
                return
            self._write_recipe(link)
            lineage = {}
            if parent is not None:
                lineage = {"parent": str(parent), "parent_hash": file_digest(parent)}
            manifest.note(link.name, state="running", **lineage)
        began, folder = time.monotonic(), self.workspace / link.name
        try:
            self._train(link, number, parent)
            weights = self.child.weights(folder)
            if not weights.exists():
                raise RunError(f"{link.name}: left no {weights}")
            check_sparsity(link, weights, self.description.fields)
        except (RunError, CheckpointError) as error:
            with self._lock:
                manifest.note(link.name, state="failed", error=one_line(error))
            raise
        found = measured(folder)
        with self._lock:
            manifest.note(
                link.name, state="done", checkpoint=str(weights),
                checkpoint_hash=file_digest(weights),
                seconds=round(time.monotonic() - began, 1), metrics=found, error=None,
            )  # fmt: skip
            told = "".join(f"  {name} {value:.4f}" for name, value in found.items())
            self.say(f"{link.name}: done{told}")

    def _train(self, link: Link, number: int, parent: Path | None) -> None:
        command, log = self._command(link, parent), self.workspace / f"{link.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        if self.workers > 1 and self.child.gpus:
            environment.setdefault("CUDA_VISIBLE_DEVICES", str(number % self.child.gpus))
        with log.open("ab") as out:
            out.write(f"$ {shlex.join(command)}\n".encode())
            out.flush()
            try:
                status = subprocess.run(
                    command, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False
                ).returncode
            except OSError as error:
                raise RunError(f"{command[0]} cannot be started: {error.strerror}") from error
        if status:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
            raise RunError(f"{link.name} has failed with status {status}, see {log}: {last[-1]}")

    def _command(self, link: Link, parent: Path | None) -> list[str]:
        folder = self.workspace / link.name
        return self.child.command(link, folder, self._recipe_file(link), parent)

    def _recipe_file(self, link: Link) -> Path:
        return self.workspace / "recipes" / f"{link.name.replace('/', '_')}.yaml"

    def _write_recipe(self, link: Link) -> None:
        with atomic_text(self._recipe_file(link)) as file:
            file.write(link.recipe)

    def _left_by(self, together: Sequence[Link]) -> Path:
        if len(together) > 1:
            kind = self.child.weights(self.workspace).suffix
            return self.workspace / Path(together[0].name).parent / f"{MERGED}{kind}"
        return self.child.weights(self.workspace / together[0].name)

    def _merge(self, together: Sequence[Link]) -> None:
        files = [self.child.weights(self.workspace / link.name) for link in together]
        target = self._left_by(together)
        owner = merge(files, target, self.rest)
        with atomic_text(target.with_suffix(".json")) as file:
            json.dump({"owner": owner, "rest": self.rest}, file, indent=2)
        self.say(f"{target.parent.name}: {len(files)} workers merged")
