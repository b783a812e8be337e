"""Weights that timm has others keep for it: told at once if they cannot be had."""

from __future__ import annotations

from typing import Any

import timm

from sparseml.run.errors import RunError, one_line

_PATIENCE = 10.0  # seconds for a host to answer
_FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")


def weights_at_hand(name: str, flags: tuple[str, str]) -> dict[str, Any]:
    """Return what more timm's ``create_model`` has to be told to find its weights for a model.

    timm itself asks a host that does not answer again and again for a minute, with a line or two
    on stderr each time. Here it is asked once.

    :param name: of a model of timm
    :param flags: that give the model and a file of weights, for errors
    :return: nothing, or a copy on this machine where the host does not answer
    :raises RunError: if there is neither
    """
    known = timm.get_pretrained_cfg(name)
    if known is None or known.file or not known.hf_hub_id:  # from elsewhere, or from nowhere
        return {}
    import huggingface_hub
    from huggingface_hub import constants

    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # which ones depends on what huggingface_hub is built on
        repository, _, revision = known.hf_hub_id.partition("@")
        for file in filter(None, (known.hf_hub_filename, *_FILES)):
            copy = huggingface_hub.try_to_load_from_cache(
                repository, file, revision=revision or None
            )
            if isinstance(copy, str):
                return {"pretrained_cfg_overlay": {"file": copy}}
        none = ", --no-pretrained random ones" if flags[0] == "--model" else ""
        raise RunError(
            f"{flags[0]} {name}: the weights {known.hf_hub_id} are not on this machine, and "
            f"{constants.ENDPOINT} does not answer ({one_line(error)}); {flags[1]} takes a file of "
            f"weights{none}"
        ) from error
    return {}
