"""Attach a pack to an LLM: anchors, relative maps and the table that carries probabilities over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.alignment.anchors import Anchors
from onceedit_vllm.alignment.cache import entry_folder, fingerprint, load_entry, save_entry
from onceedit_vllm.alignment.report import AlignmentReport, AnyMap, make_report
from onceedit_vllm.alignment.side import Side, llm_side, plugin_side
from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.statistics import Progress
from onceedit_vllm.alignment.tables import Tables, build_tables, restore_tables
from onceedit_vllm.config import AlignmentConfig, cache_dir
from onceedit_vllm.terminal import progress_bar

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
class _Found:
    """The tables, and how they were come by."""

    tables: Tables
    from_cache: bool
    warnings: tuple[str, ...] = ()


def align(
    pack: EditPack | str | Path,
    llm: str | Path,
    *,
    config: AlignmentConfig = AlignmentConfig(),  # noqa: B008 (frozen)
    cache: Path | None = None,
    progress: bool = False,
) -> Alignment:
    """Align a pack's plug-in with an LLM; from the cache where this pair was aligned before.

    The kind ``textual`` reads tokenizers only, and from the cache not even those. The dense kinds also
    need both embedding tables, which stay mapped from their files. R_s comes from the pack's base
    embeddings, so a new edit of the same plug-in finds its alignment in the cache.

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
    plugin, model = plugin_side(pack), llm_side(llm, progress=progress)
    found = _find_tables(plugin, model, config, cache or cache_dir(), progress=progress)
    tables = found.tables
    report = make_report(
        tables.anchors,
        tables.plugin_map,
        tables.llm_map,
        (plugin.width, model.width),
        llm_parameters=model.parameters,
        seconds=time.perf_counter() - started,
        from_cache=found.from_cache,
        warnings=found.warnings,
    )
    return Alignment(
        tables.anchors, tables.plugin_map, tables.llm_map, tables.carry, tables.spellings, report
    )


def _find_tables(plugin: Side, llm: Side, config: AlignmentConfig, cache: Path, *, progress: bool) -> _Found:
    """From the cache; else made, and put there."""
    dense = config.kind != "textual"
    identity = {
        "plugin": plugin.identity(embeddings=dense),
        "llm": llm.identity(embeddings=dense),
        "settings": config.model_dump(),
    }
    folder = entry_folder(cache, fingerprint(identity))
    tensors = load_entry(folder)
    tables = restore_tables(tensors, plugin, llm, config) if tensors is not None else None
    if tables is not None:
        return _Found(tables, from_cache=True)
    with _progress_bar(plugin.size + llm.size, show=progress and dense) as advance:
        tables = build_tables(plugin, llm, config, advance)
    return _Found(tables, from_cache=False, warnings=_keep(tables, folder, identity))


def _keep(tables: Tables, folder: Path, identity: dict[str, Any]) -> tuple[str, ...]:
    """Put tables into the cache, and say what a user should know about that."""
    warnings = []
    if folder.exists():
        warnings.append(f"the cached alignment in {folder} was damaged and has been rebuilt")
    try:
        save_entry(folder, tables.tensors(), identity)
    except OSError as error:
        warnings.append(f"the alignment could not be cached in {folder}: {error}")
    return tuple(warnings)


@contextmanager
def _progress_bar(total: int, *, show: bool) -> Iterator[Progress]:
    if not show:
        yield lambda rows: None
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("measuring the relative maps"), BarColumn(), TimeRemainingColumn())
    with progress_bar(*columns, shown=True) as bar:
        task = bar.add_task("rows", total=total)
        yield lambda rows: bar.advance(task, rows)
