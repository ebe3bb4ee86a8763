"""Attach a pack to an LLM: anchors, relative maps and the table that carries probabilities over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.alignment.anchors import Anchors, find_anchors
from onceedit_vllm.alignment.cache import (
    entry_folder,
    fingerprint,
    load_entry,
    save_entry,
    tokenizer_fingerprint,
)
from onceedit_vllm.alignment.dense import STATISTICS, DenseMap
from onceedit_vllm.alignment.embeddings import load_embeddings, read_config, tensor_fingerprint
from onceedit_vllm.alignment.report import AlignmentReport, AnyMap, make_report
from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.statistics import Progress, build_dense_map
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.alignment.textual import carry_table, textual_maps
from onceedit_vllm.config import AlignmentConfig, MapKind, cache_dir
from onceedit_vllm.errors import AlignmentError, BadInputError

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.pack import EditPack


@dataclass(frozen=True)
class Alignment:
    """Everything fusion needs to know about a pair of models.

    Attributes:
        anchors: A pairs of tokens; pair j owns coordinate j of the relative space.
        plugin_map: R_s, from the unedited plug-in's embeddings.
        llm_map: R_l.
        carry: (V_s,) int64, the textual map as a table: plug-in token -> LLM token, -1 where none.
            End of sequence goes to end of sequence, [WEIGHT] to -1.
        spellings: Plug-in tokens that the LLM writes in several tokens.
        report: The numbers.
    """

    anchors: Anchors
    plugin_map: AnyMap
    llm_map: AnyMap
    carry: Tensor
    spellings: Spellings
    report: AlignmentReport


@dataclass(frozen=True)
class _Side:
    """One model of the pair, with only its tokenizer and its embedding table loaded."""

    name: str
    tokenizer: Any
    table: Tensor
    size: int

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "embeddings": tensor_fingerprint(self.table),
            "size": self.size,
        }


@dataclass(frozen=True)
class _Tables:
    """What is computed once and cached."""

    anchors: Anchors
    carry: Tensor
    spellings: Spellings
    plugin_map: AnyMap
    llm_map: AnyMap


def align(
    pack: EditPack | str | Path,
    llm: str | Path,
    *,
    config: AlignmentConfig = AlignmentConfig(),  # noqa: B008 (frozen)
    cache: Path | None = None,
    progress: bool = False,
) -> Alignment:
    """Align a pack's plug-in with an LLM; from the cache where this pair was aligned before.

    Only tokenizers and embedding tables are loaded. R_s comes from the pack's base embeddings, so
    a new edit of the same plug-in finds its alignment in the cache.

    Args:
        pack: An EditPack or its folder.
        llm: A model's folder, name or hub id.
        config: Kind of the maps, matching, and settings of the kinds.
        cache: Root of the cache; default :func:`~onceedit_vllm.config.cache_dir`.
        progress: Show a progress bar while a dense kind is measured.

    Raises:
        AlignmentError: The two vocabularies cannot be aligned.
        BadInputError: Pack or LLM are not what they should be.
        PackError: The pack is missing or damaged.
        ModelError: The LLM cannot be found.
    """
    started = time.perf_counter()
    plugin, model = _plugin_side(pack), _llm_side(llm, progress=progress)
    identity = {"plugin": plugin.identity, "llm": model.identity, "settings": config.model_dump()}
    folder = entry_folder(cache or cache_dir(), fingerprint(identity))
    tables = _restore(folder, plugin, model, config)
    from_cache = tables is not None
    warnings: tuple[str, ...] = ()
    if tables is None:
        if folder.exists():
            warnings += (f"the cached alignment in {folder} was damaged and has been rebuilt",)
        with _progress_bar(plugin.size + model.size, show=progress and config.kind != "textual") as advance:
            tables = _build(plugin, model, config, advance)
        try:
            save_entry(folder, _tensors(tables), identity)
        except OSError as error:
            warnings += (f"the alignment could not be cached in {folder}: {error}",)
    report = make_report(
        tables.anchors,
        tables.plugin_map,
        tables.llm_map,
        (plugin.table.shape[1], model.table.shape[1]),
        seconds=time.perf_counter() - started,
        from_cache=from_cache,
        warnings=warnings,
    )
    return Alignment(
        tables.anchors, tables.plugin_map, tables.llm_map, tables.carry, tables.spellings, report
    )


def _plugin_side(pack: EditPack | str | Path) -> _Side:
    if isinstance(pack, str | Path):
        from onceedit_vllm.pack import EditPack

        pack = EditPack.load(pack)
    table = pack.base_embeddings()
    size = max(
        len(table),
        pack.manifest.weight_token_id + 1,
        int(read_config(pack.model_dir).get("vocab_size", 0)),
    )
    if size > len(table):
        # The edited plug-in also has [WEIGHT] and padding, which have no row in the base table.
        table = torch.cat([table, table.new_zeros(size - len(table), table.shape[1])])
    return _Side("plug-in", _load_tokenizer(pack.model_dir), table, size)


def _llm_side(llm: str | Path, *, progress: bool) -> _Side:
    from onceedit_vllm.models import resolve_model

    if Path(llm).expanduser().is_file():
        raise BadInputError(f"{llm} is a file; an LLM is given as a folder, a name or a hub id")
    folder = resolve_model(llm, progress=progress)
    table = load_embeddings(folder)
    return _Side(f"LLM {llm}", _load_tokenizer(folder), table, len(table))


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever the missing file leads to
        raise AlignmentError(
            f"{folder} holds no tokenizer that transformers can load ({type(error).__name__}: {error}); "
            "copy the model's tokenizer.json and tokenizer_config.json there"
        ) from error


def _build(plugin: _Side, llm: _Side, config: AlignmentConfig, advance: Progress) -> _Tables:
    surfaces = {side.name: _checked_surface(side) for side in (plugin, llm)}
    by_bytes = config.matching == "bytes"
    found = find_anchors(
        surfaces[plugin.name] if by_bytes else plugin.tokenizer,
        surfaces[llm.name] if by_bytes else llm.tokenizer,
        config.matching,
        pair_eos=True,
    )
    inside = (found.plugin_ids < plugin.size) & (found.llm_ids < llm.size)
    anchors = Anchors(found.plugin_ids[inside], found.llm_ids[inside], found.matching)
    carry, spellings = carry_table(
        surfaces[plugin.name], surfaces[llm.name], llm.tokenizer, anchors, plugin.size
    )
    if config.kind == "textual":
        return _Tables(anchors, carry, spellings, *textual_maps(anchors, carry, llm.size))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    maps = [
        build_dense_map(
            config.kind,
            side.table.to(device),
            ids.to(device),
            self_mass=config.self_mass,
            advance=advance,
        ).to(torch.device("cpu"))
        for side, ids in ((plugin, anchors.plugin_ids), (llm, anchors.llm_ids))
    ]
    return _Tables(anchors, carry, spellings, maps[0], maps[1])


def _checked_surface(side: _Side) -> Surface:
    """The surface of a model's tokenizer, once it is sure to fit the embedding table."""
    surface = Surface.of(side.tokenizer)
    beyond = [i for i in range(side.size, surface.vocab_size) if surface.token_bytes[i] is not None]
    if beyond:
        raise AlignmentError(
            f"the tokenizer of the {side.name} has {len(beyond)} tokens beyond the {side.size} rows of its "
            f"embedding table (first: id {beyond[0]}): tokenizer and weights are of two different models"
        )
    return surface


def _tensors(tables: _Tables) -> dict[str, Tensor]:
    tensors = {
        "plugin_ids": tables.anchors.plugin_ids,
        "llm_ids": tables.anchors.llm_ids,
        "carry": tables.carry,
        "spelling.tokens": tables.spellings.tokens,
        "spelling.ids": tables.spellings.ids,
        "spelling.ends": tables.spellings.ends,
    }
    for name, relative_map in (("plugin", tables.plugin_map), ("llm", tables.llm_map)):
        if isinstance(relative_map, DenseMap):
            tensors |= {f"{name}.{key}": value for key, value in relative_map.statistics().items()}
    return tensors


def _restore(folder: Path, plugin: _Side, llm: _Side, config: AlignmentConfig) -> _Tables | None:
    tensors = load_entry(folder)
    if tensors is None:
        return None
    try:
        anchors = Anchors(tensors["plugin_ids"], tensors["llm_ids"], config.matching)
        carry = tensors["carry"]
        spellings = Spellings(*(tensors[f"spelling.{name}"] for name in ("tokens", "ids", "ends")))
        if config.kind == "textual":
            return _Tables(anchors, carry, spellings, *textual_maps(anchors, carry, llm.size))
        plugin_map = _dense_from(config.kind, "plugin", plugin.table, anchors.plugin_ids, tensors)
        llm_map = _dense_from(config.kind, "llm", llm.table, anchors.llm_ids, tensors)
    except KeyError:
        return None
    return _Tables(anchors, carry, spellings, plugin_map, llm_map)


def _dense_from(
    kind: MapKind, name: str, table: Tensor, anchor_ids: Tensor, tensors: dict[str, Tensor]
) -> DenseMap:
    statistics: dict[str, Any] = {key: tensors[f"{name}.{key}"] for key in STATISTICS}
    return DenseMap(kind=kind, embeddings=table, anchor_ids=anchor_ids, **statistics)


@contextmanager
def _progress_bar(total: int, *, show: bool) -> Iterator[Progress]:
    if not show:
        yield lambda rows: None
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("measuring the relative maps"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns) as bar:
        task = bar.add_task("rows", total=total)
        yield lambda rows: bar.advance(task, rows)
