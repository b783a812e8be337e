"""Numbers of heads, neurons and channels that modules keep beside their layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from torch import nn

#: what is removed -> attributes that count it
COUNTS = {
    "heads": (
        *("num_attention_heads", "num_heads", "n_heads", "n_head", "num_q_heads", "heads"),
        *("num_key_value_heads", "num_kv_heads", "n_kv_heads"),
    ),
    "channels": (),
    "neurons": (),
    "stream": (),
}
_ALL_HEADS = (
    *("all_head_size", "inner_dim", "attn_dim", "split_size", "embed_dim", "dim"),
    *("hidden_size", "q_size", "kv_size", "qkv_dim"),
)
#: what is removed -> attributes that may hold the width of all of it together
WIDTHS = {
    "heads": _ALL_HEADS,
    "channels": (
        *("attention_head_size", "head_dim", "head_size", "dim_head", "key_value_proj_dim"),
        *_ALL_HEADS,
    ),
    "neurons": ("intermediate_size", "hidden_features", "ffn_dim", "hidden_dim"),
    # others tell the scale of embeddings as well, which stays
    "stream": ("d_model",),
}

#: scales of scores and of embeddings
SCALES = ("scale", "scaling", "embed_scale")


def between(model: nn.Module, layers: tuple[str, ...]) -> Iterator[nn.Module]:
    """The modules that hold the layers together: what they share, and on the way to each."""
    paths = [name.split(".")[:-1] for name in layers]
    shared = 0
    while all(len(path) > shared for path in paths) and len({p[shared] for p in paths}) == 1:
        shared += 1
    names = {".".join(path[:end]) for path in paths for end in range(shared, len(path) + 1)}
    for name in sorted(names):
        yield model.get_submodule(name)


def resize(
    modules: Iterator[nn.Module], kind: str, units: int, kept: int, widths: Collection[int]
) -> None:
    """Set the attributes of modules to what is left.

    :param kind: of units, a key of :data:`COUNTS`
    :param units: how many there were, of channels in each head. Counts that are multiples (queries
        that share a key) shrink in proportion
    :param widths: of all units together, as each layer had them
    """
    for module in modules:
        for name, value in sizes_of(module).items():
            counts = name in COUNTS[kind] and value % units == 0
            if counts or (name in WIDTHS[kind] and value in widths):
                setattr(module, name, value // units * kept)


def sizes_of(module: nn.Module) -> Mapping[str, int]:
    """The attributes of a module that the tables name, and that are whole numbers."""
    names = [name for table in (COUNTS, WIDTHS) for kind in table.values() for name in kind]
    values = vars(module)
    return {name: values[name] for name in names if type(values.get(name)) is int}


def constants_of(module: nn.Module) -> Mapping[str, float]:
    """The scales of a module that follow a width and must outlast it, where they are numbers."""
    values = vars(module)
    return {name: values[name] for name in SCALES if type(values.get(name)) is float}
