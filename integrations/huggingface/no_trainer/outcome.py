"""Running a GLUE script, and bringing what comes of it to the hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from no_trainer.glue import GlueScript
from sparseml.run import RunError, one_line, run_reported, say, train


def run_script(argv: Sequence[str], prog: str, mixed: bool = False) -> int:
    """Run a script, and return the exit status: 2 after a mistake of the user.

    :param mixed: prune to two patterns, see :class:`GlueScript`
    """
    # which tells of every try to reach the hub; that it cannot be reached is told in the end
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    script = GlueScript(mixed)
    status = train(argv, script, prog)
    if status or not script.uploads or os.environ.get("RANK", "0") != "0":
        return status
    return run_reported(lambda: _upload(script))


def _upload(script: GlueScript) -> None:
    """Bring the model's folder to the hub."""
    from huggingface_hub import HfApi

    name = script.hub_model_id or script.folder.name
    api = HfApi(token=script.hub_token)
    try:
        where = api.create_repo(name, exist_ok=True).repo_id
        api.upload_folder(repo_id=where, folder_path=script.folder / "model")
    except Exception as error:  # no network, no right to: each release has errors of its own
        raise RunError(f"--push-to-hub {name}: {one_line(error)}") from error
    say(f"uploaded to {where}")
