"""One model of a pair to be aligned: its tokenizer and embedding table, each read if and when needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.alignment.cache import remembered
from onceedit_vllm.alignment.checkpoint import read_config
from onceedit_vllm.alignment.embeddings import embeddings_shape, load_embeddings, tensor_fingerprint
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.alignment.tokenizer_files import files_fingerprint, load_tokenizer, tokenizer_fingerprint
from onceedit_vllm.errors import AlignmentError, BadInputError

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.pack import EditPack


@dataclass(frozen=True)
class Side:
    """One model of the pair.

    Attributes:
        name: What messages call it.
        folder: Where its config is, and its tokenizer where none is given.
        shape: (rows, d) of the unedited input embeddings, as stored.
        load: Maps these embeddings from their file; the kinds that need none never call it.
        size: V, the number of logits; at least ``rows``.
        given: A loaded tokenizer that goes before the folder's.
    """

    name: str
    folder: Path
    shape: tuple[int, int]
    load: Callable[[], Tensor]
    size: int
    given: Any = None

    def identity(self, cache: Path, *, embeddings: bool) -> dict[str, Any]:
        """What an alignment depends on; the embeddings are hashed only where maps are made of them."""
        identity = {"tokenizer": self._tokenizer_fingerprint(cache), "size": self.size}
        # Of a mapping of its own: what was read leaves the process's memory with it.
        return identity | ({"embeddings": tensor_fingerprint(self.load())} if embeddings else {})

    def _tokenizer_fingerprint(self, cache: Path) -> str:
        """The same for a folder and for what an engine has loaded from it."""
        if self.given is not None:
            return tokenizer_fingerprint(self.given)
        key = files_fingerprint(self.folder)
        return remembered(cache, key, lambda: tokenizer_fingerprint(self.tokenizer))

    @cached_property
    def table(self) -> Tensor:
        """(V, d) the embeddings; a copy only where tokens without a stored row are to be added."""
        stored = self.load()
        missing = self.size - len(stored)
        # The edited plug-in also has [WEIGHT] and padding, which have no row in the base table.
        return stored if not missing else torch.nn.functional.pad(stored, (0, 0, 0, missing))

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers loads it, or as given."""
        return load_tokenizer(self.folder) if self.given is None else self.given

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


def plugin_side(pack: EditPack | str | Path) -> Side:
    """The plug-in of a pack, with the embeddings it had before it was edited.

    Raises:
        PackError: The pack is missing or damaged.
    """
    if isinstance(pack, str | Path):
        from onceedit_vllm.pack import EditPack

        pack = EditPack.load(pack)
    rows, width = pack.base_embeddings().shape
    configured = int(read_config(pack.model_dir).get("vocab_size", 0))
    size = max(rows, pack.manifest.weight_token_id + 1, configured)
    return Side("plug-in", pack.model_dir, (rows, width), pack.base_embeddings, size)


def llm_side(llm: str | Path, tokenizer: Any = None, *, progress: bool = False) -> Side:
    """The LLM of a name, folder or hub id; with a tokenizer of a folder that need not have one.

    Raises:
        BadInputError: It is none of the three.
        ModelError: It cannot be found.
        AlignmentError: The shape of its embedding table cannot be read.
    """
    from onceedit_vllm.models import resolve_model

    if Path(llm).expanduser().is_file():
        raise BadInputError(f"{llm} is a file; an LLM is given as a folder, a name or a hub id")
    folder = resolve_model(llm, progress=progress) if tokenizer is None else Path(llm)
    shape = embeddings_shape(folder)
    return Side(f"LLM {llm}", folder, shape, partial(load_embeddings, folder), shape[0], tokenizer)
