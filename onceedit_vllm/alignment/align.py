"""Attach a pack to an LLM: anchors, relative maps and the table that carries probabilities over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.alignment.anchors import Anchors
from onceedit_vllm.alignment.cache import entry_folder, fingerprint, load_entry, remove_entry, save_entry
from onceedit_vllm.alignment.checkpoint import count_parameters
from onceedit_vllm.alignment.report import AlignmentReport, make_report
from onceedit_vllm.alignment.side import Side, llm_side, plugin_side
from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.tables import Tables, build_tables, restore_tables
from onceedit_vllm.config import AlignmentConfig, cache_dir
from onceedit_vllm.dense.pair import DenseMaps
from onceedit_vllm.dense.statistics import Progress
from onceedit_vllm.terminal import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.pack import EditPack


@dataclass(frozen=True)
class Alignment:
    """Everything fusion needs to know about a pair of models.

    Attributes:
        anchors: A pairs of tokens; pair j owns coordinate j of the relative space.
        carry: (V_s,) int64, the textual maps as a table: plug-in token -> LLM token, -1 where none.
            End of sequence goes to end of sequence, [WEIGHT] to -1.
        spellings: Plug-in tokens that the LLM writes in several tokens.
        dense: R_s and R_l of a kind that is made of embeddings; None for ``textual``.
        report: The numbers.
    """

    anchors: Anchors
    carry: Tensor
    spellings: Spellings
    dense: DenseMaps | None
    report: AlignmentReport


def align(
    pack: EditPack | str | Path,
    llm: str | Path,
    *,
    config: AlignmentConfig = AlignmentConfig(),  # noqa: B008 (frozen)
    tokenizer: Any = None,
    cache: Path | None = None,
    progress: bool = False,
) -> Alignment:
    """Align a pack's plug-in with an LLM; from the cache where this pair was aligned before.

    ``textual`` reads tokenizers only, and from the cache not even those. The dense kinds also need both
    embedding tables, which stay mapped from their files. R_s comes from the pack's base embeddings, so a
    new edit of the same plug-in finds its alignment in the cache.

    Args:
        pack: An EditPack or its folder.
        llm: A model's folder, name or hub id; with ``tokenizer`` the folder of its config and weights.
        config: Kind of the maps, matching, and settings of the kinds.
        tokenizer: The LLM's, as an engine has loaded it; default: that of the folder.
        cache: Root of the cache; default :func:`~onceedit_vllm.config.cache_dir`.
        progress: Show a progress bar while a dense kind is measured.

    Raises:
        AlignmentError: The two vocabularies cannot be aligned.
        BadInputError: Pack or LLM are not what they should be.
        PackError: The pack is missing or damaged.
        ModelError: The LLM cannot be found.
    """
    started = time.perf_counter()
    sides = plugin_side(pack), llm_side(llm, tokenizer, progress=progress)
    tables, warnings = _find_tables(*sides, config, cache or cache_dir(), progress=progress)
    return Alignment(*tables, _report(tables, *sides, started, warnings))


def _find_tables(
    plugin: Side, llm: Side, config: AlignmentConfig, cache: Path, *, progress: bool
) -> tuple[Tables, tuple[str, ...] | None]:
    """From the cache; else made and put there, with what a user should know about that."""
    dense = config.dense_kind is not None
    # The LLM first: reading the larger of the two tokenizers is the peak of memory.
    identity = {
        "llm": llm.identity(cache, embeddings=dense),
        "plugin": plugin.identity(cache, embeddings=dense),
        "settings": config.model_dump(),
    }
    folder = entry_folder(cache, fingerprint(identity))
    tensors = load_entry(folder)
    tables = None if tensors is None else restore_tables(tensors, plugin, llm, config)
    if tables is not None:
        return tables, None
    with _progress_bar(plugin.size + llm.size, show=progress and dense) as advance:
        tables = build_tables(plugin, llm, config, advance)
    return tables, _keep(tables, folder, identity)


def _report(
    tables: Tables, plugin: Side, llm: Side, started: float, warnings: tuple[str, ...] | None
) -> AlignmentReport:
    return make_report(
        tables,
        (plugin.size, llm.size),
        (plugin.shape[1], llm.shape[1]),
        llm_parameters=count_parameters(llm.folder),
        seconds=time.perf_counter() - started,
        from_cache=warnings is None,
        warnings=warnings or (),
    )


def _keep(tables: Tables, folder: Path, identity: dict[str, Any]) -> tuple[str, ...]:
    """Put tables into the cache, and say what a user should know about that."""
    warnings = []
    if folder.exists():
        warnings.append(f"the alignment in {folder} is damaged or cannot be read, and has been made anew")
        remove_entry(folder)
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
