"""One model of a pair to be aligned: its tokenizer and embedding table, each read when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.alignment.checkpoint import count_parameters, read_config
from onceedit_vllm.alignment.embeddings import load_embeddings, tensor_fingerprint
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.alignment.tokenizer_files import load_tokenizer, tokenizer_fingerprint
from onceedit_vllm.errors import AlignmentError, BadInputError

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.pack import EditPack


@dataclass(frozen=True)
class Side:
    """One model of the pair.

    Attributes:
        name: What messages call it.
        folder: Where its tokenizer and config are.
        stored: (rows, d) the unedited input embeddings, mapped from their file: until a row is looked
            at, only their shape has been read.
        load: Maps them once more.
        size: V, the number of logits; at least ``rows``.
    """

    name: str
    folder: Path
    stored: Tensor
    load: Callable[[], Tensor]
    size: int

    @property
    def width(self) -> int:
        """The width d of an embedding."""
        return self.stored.shape[1]

    def identity(self, *, embeddings: bool) -> dict[str, Any]:
        """What an alignment depends on; the embeddings are hashed only where maps are made of them."""
        identity = {"tokenizer": tokenizer_fingerprint(self.folder), "size": self.size}
        # Of a mapping of its own: what was read leaves the process's memory with it.
        return identity | ({"embeddings": tensor_fingerprint(self.load())} if embeddings else {})

    @cached_property
    def table(self) -> Tensor:
        """(V, d) the embeddings; a copy only where tokens without a stored row are to be added."""
        missing = self.size - len(self.stored)
        # The edited plug-in also has [WEIGHT] and padding, which have no row in the base table.
        return self.stored if not missing else torch.nn.functional.pad(self.stored, (0, 0, 0, missing))

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers loads it."""
        return load_tokenizer(self.folder)

    @cached_property
    def surface(self) -> Surface:
        """The text side of the tokenizer, once it is sure to fit the embedding table.

        Raises:
            AlignmentError: There is no tokenizer, or tokenizer and weights are of two models.
        """
        surface = Surface.of(self.tokenizer)
        beyond = [i for i in range(self.size, surface.vocab_size) if surface.token_bytes[i] is not None]
        if beyond:
            raise AlignmentError(
                f"the tokenizer of the {self.name} has {len(beyond)} tokens beyond the {self.size} rows of "
                f"its embedding table (first: id {beyond[0]}): tokenizer and weights are of two different "
                "models"
            )
        return surface

    def forget_text(self) -> None:
        """Give back the memory of tokenizer and surface, some hundred MB of a large vocabulary."""
        for name in ("tokenizer", "surface"):
            vars(self).pop(name, None)

    @property
    def parameters(self) -> int | None:
        """Parameters of the model; None where its files do not tell."""
        return count_parameters(self.folder)


def plugin_side(pack: EditPack | str | Path) -> Side:
    """The plug-in of a pack, with the embeddings it had before it was edited.

    Raises:
        PackError: The pack is missing or damaged.
    """
    if isinstance(pack, str | Path):
        from onceedit_vllm.pack import EditPack

        pack = EditPack.load(pack)
    stored = pack.base_embeddings()
    configured = int(read_config(pack.model_dir).get("vocab_size", 0))
    size = max(len(stored), pack.manifest.weight_token_id + 1, configured)
    return Side("plug-in", pack.model_dir, stored, pack.base_embeddings, size)


def llm_side(llm: str | Path, *, progress: bool) -> Side:
    """The LLM of a name, folder or hub id.

    Raises:
        BadInputError: It is none of the three.
        ModelError: It cannot be found.
        AlignmentError: Its embedding table cannot be read.
    """
    from onceedit_vllm.models import resolve_model

    if Path(llm).expanduser().is_file():
        raise BadInputError(f"{llm} is a file; an LLM is given as a folder, a name or a hub id")
    folder = resolve_model(llm, progress=progress)
    stored = load_embeddings(folder)
    return Side(f"LLM {llm}", folder, stored, partial(load_embeddings, folder), len(stored))
