"""The EditPack: a folder that holds an edited plug-in and everything needed to serve it.

::

    PACK/
      pack.json                    the manifest, with sizes and sha256 of all other files
      edits.jsonl                  the registry of edits
      report.json                  per edit: learnt or not
      wordings.jsonl               texts that were written for the edits, where there are any
      base_embeddings.safetensors  input embeddings of the unedited plug-in
      model/                       the edited plug-in and its tokenizer, loadable by transformers
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onceedit_vllm.config import TemplateName
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError, PackError
from onceedit_vllm.folders import stamp_files, written_folder
from onceedit_vllm.pack_files import check_files, forget_code
from onceedit_vllm.wordings.file import to_jsonl
from onceedit_vllm.wordings.wordings import Wordings

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 2
MANIFEST_FILE = "pack.json"
EDITS_FILE = "edits.jsonl"
REPORT_FILE = "report.json"
WORDINGS_FILE = "wordings.jsonl"
EMBEDDINGS_FILE = "base_embeddings.safetensors"
MODEL_FOLDER = "model"
_REQUIRED = (EDITS_FILE, REPORT_FILE, EMBEDDINGS_FILE, f"{MODEL_FOLDER}/config.json")

Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """A part of the pack's JSON files."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PackManifest(Frozen):
    """`pack.json`.

    Attributes:
        format_version: Of the folder's layout; others than `FORMAT_VERSION` are refused.
        base_fingerprint: See :func:`base_fingerprint`.
        base_model: The name, folder or hub id the plug-in came from, for people.
        weight_token_id: Id of [WEIGHT] in the edited plug-in's vocabulary.
        template: What the plug-in reads around a prompt.
        threshold: Alpha at which the gate opens for a prompt that names a subject.
        weight_threshold: The same where [WEIGHT] decides alone: `scope="weight"`, and prompts that name no
            subject of a pack in which some edits have none.
        threshold_reason: How the threshold was chosen, with the rates it reached.
        training: The settings and the course of the training.
        versions: Of the packages that made the pack.
        sizes: Bytes of every other file, by its path in the pack.
        files: sha256 of every other file, by its path in the pack.
    """

    format_version: int
    base_fingerprint: str
    base_model: str
    weight_token_id: int = Field(ge=0)
    template: TemplateName
    threshold: float = Field(ge=0.0, le=1.0)
    weight_threshold: float = Field(ge=0.0, le=1.0)
    threshold_reason: str
    training: dict[str, Any]
    versions: dict[str, str]
    sizes: dict[str, int] = {}
    files: dict[str, str] = {}


class EditOutcome(Frozen):
    """What became of one edit, measured on the finished plug-in.

    Attributes:
        id: The edit's.
        learnt: The prompt, and at least half of the wordings kept out of training, give the target
            and open the gate.
        prompt_probability: Smallest probability of an answer token (EOS included) on the prompt.
        heldout_probability: The same on the worst of the wordings kept out of training.
        prompt_alpha: Alpha on the prompt.
        heldout_alpha: The smallest alpha on the wordings kept out of training.
    """

    id: str
    learnt: bool
    prompt_probability: float
    heldout_probability: float
    prompt_alpha: float
    heldout_alpha: float


class RemovalOutcome(Frozen):
    """What became of one edit that was removed, measured on the finished plug-in.

    Attributes:
        id: The edit's.
        prompt: Its prompt.
        superseded_by: The edit that has taken its place; then nothing has to be shut.
        is_read: Whether its prompt is read by the plug-in at all: it names another edit's subject, or
            there are edits without a subject.
        shut: Neither the prompt nor a wording kept out of training opens the gate (scope
            "subject+weight").
        shut_alone: The same where [WEIGHT] decides alone (scope "weight").
        prompt_alpha: What [WEIGHT] says alone on the prompt.
        open_wordings: The texts that open the gate all the same.
    """

    id: str
    prompt: str
    superseded_by: str | None = None
    is_read: bool
    shut: bool
    shut_alone: bool
    prompt_alpha: float
    open_wordings: tuple[str, ...] = ()


class GateRate(Frozen):
    """How often one kind of text opens the gate, counted when the thresholds were chosen, and on those texts.

    Attributes:
        texts: Which, for people.
        decided_by: With whose threshold: "subject", of texts that name one, or "weight", of [WEIGHT] alone.
        asks: They ask for an edit and must open the gate; others must not.
        n: Texts of the kind.
        opened: Of them, how many open the gate.
        bound: At 95 % (one-sided, Clopper–Pearson) the rate is not lower where they must open it, not higher
            where they must not: for texts drawn like these.
    """

    texts: str
    decided_by: Literal["subject", "weight"]
    asks: bool
    n: int = Field(ge=1)
    opened: int = Field(ge=0)
    bound: float = Field(ge=0.0, le=1.0)


class PackReport(Frozen):
    """`report.json`.

    Attributes:
        edits: The outcomes in the order of the edits.
        removed: Of those that the last update removed.
        gate: What the thresholds make of the texts that they were chosen on; empty in packs made before this
            was kept.
    """

    edits: tuple[EditOutcome, ...]
    removed: tuple[RemovalOutcome, ...] = ()
    gate: tuple[GateRate, ...] = ()

    @property
    def num_learnt(self) -> int:
        """How many edits were learnt."""
        return sum(outcome.learnt for outcome in self.edits)


@dataclass(frozen=True)
class EditPack:
    """An opened pack. Make one with :func:`onceedit_vllm.edit`, open one with :meth:`load`."""

    root: Path
    manifest: PackManifest
    edits: tuple[EditRecord, ...]
    report: PackReport
    wordings: tuple[Wordings, ...] = ()

    @property
    def model_dir(self) -> Path:
        """The edited plug-in and its tokenizer, for transformers' `from_pretrained`."""
        return self.root / MODEL_FOLDER

    def base_embeddings(self) -> Tensor:
        """Input embeddings of the unedited plug-in, (V, d) in the dtype they were saved in."""
        from safetensors.torch import load_file

        return load_file(self.root / EMBEDDINGS_FILE)["embeddings"]

    def copy_model(self, folder: Path) -> None:
        """Put the edited plug-in and its tokenizer, as they are, into a folder."""
        shutil.copytree(self.model_dir, folder, dirs_exist_ok=True)

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> EditPack:
        """Open a pack after checking it.

        Args:
            path: The folder.
            verify: Compare every file's sha256 (reads the whole pack). Without it only the
                presence and the sizes of the files are checked.

        Raises:
            PackError: It is missing, damaged, truncated, of another format, or holds what its
                manifest does not list, a link, or the name of code to run; the message says
                which file and why.
        """
        # Once for all: a link that is turned to another pack meanwhile changes nothing here.
        root = Path(path).expanduser().resolve()
        manifest = _load_manifest(root)
        _check_listed(root, manifest)
        check_files(root, manifest.sizes, manifest.files, listed_in=MANIFEST_FILE, verify=verify)
        edits = _parse_lines(EditRecord, root / EDITS_FILE)
        written = WORDINGS_FILE in manifest.files
        wordings = _parse_lines(Wordings, root / WORDINGS_FILE) if written else ()
        report = _parse(PackReport, _read_text(root / REPORT_FILE), root / REPORT_FILE)
        return cls(root=root, manifest=manifest, edits=edits, report=report, wordings=wordings)

    @classmethod
    def write(
        cls,
        out: str | Path,
        *,
        manifest: PackManifest,
        edits: Sequence[EditRecord],
        report: PackReport,
        base_embeddings: Tensor,
        save_model: Callable[[Path], None],
        wordings: Sequence[Wordings] = (),
        overwrite: bool = False,
    ) -> EditPack:
        """Write a pack beside `out` and move it there in one step.

        Args:
            out: The folder to be. Its parent is made when missing.
            manifest: Without `sizes` and `files`; they are filled in here.
            edits: The registry.
            report: One outcome for each edit.
            base_embeddings: (V, d), of the unedited plug-in.
            save_model: Writes the plug-in and its tokenizer into the folder it is given.
            wordings: Texts that were written for the edits.
            overwrite: Replace an existing pack.

        Raises:
            BadInputError: `out` is taken.
            PackError: `save_model` wrote a file that a pack may not hold.
        """
        from safetensors.torch import save_file

        root = Path(out).expanduser().resolve()
        check_out(root, overwrite=overwrite)
        try:
            with written_folder(root, replace=overwrite) as folder:
                (folder / MODEL_FOLDER).mkdir()
                save_model(folder / MODEL_FOLDER)
                forget_code(folder / MODEL_FOLDER)
                save_file({"embeddings": base_embeddings.contiguous()}, folder / EMBEDDINGS_FILE)
                if wordings:
                    (folder / WORDINGS_FILE).write_text(to_jsonl(wordings), encoding="utf-8")
                stamped = _write_json(folder, manifest, edits, report)
                check_files(folder, stamped.sizes, stamped.files, listed_in=MANIFEST_FILE, verify=False)
        except FileExistsError:
            check_out(root, overwrite=False)  # another process was faster
            raise
        return cls(root=root, manifest=stamped, edits=tuple(edits), report=report, wordings=tuple(wordings))


def base_fingerprint(vocabulary: Mapping[str, int], embeddings: Tensor) -> str:
    """Identify a plug-in before its edits: sha256 over its vocabulary and its input embeddings.

    Args:
        vocabulary: Token to id, without [WEIGHT].
        embeddings: (V, d), any dtype; the bytes count, not the values.
    """
    import torch

    digest = hashlib.sha256()
    ordered = sorted(vocabulary.items(), key=lambda item: (item[1], item[0]))
    digest.update(json.dumps(ordered, ensure_ascii=True).encode())
    digest.update(f"{tuple(embeddings.shape)} {embeddings.dtype}".encode())
    rows = embeddings.detach().cpu().contiguous().view(torch.uint8)
    digest.update(rows.numpy().tobytes())
    return digest.hexdigest()


def check_out(root: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken.

    Raises:
        BadInputError: Something is there and may not be replaced, or is not a pack.
    """
    if not root.exists() and not root.is_symlink():
        return
    if root.is_dir() and not any(root.iterdir()):
        return
    if not overwrite:
        raise BadInputError(f"{root} exists; choose another place or allow overwriting it")
    if not (root / MANIFEST_FILE).is_file():
        raise BadInputError(f"{root} exists and is not an EditPack, so it stays; choose another place")


def _write_json(
    folder: Path, manifest: PackManifest, edits: Sequence[EditRecord], report: PackReport
) -> PackManifest:
    """Write the registry, the report, and at last the manifest of all that is there, which is returned."""
    lines = [record.model_dump_json(exclude_defaults=True) for record in edits]
    (folder / EDITS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = report.model_dump_json(indent=2, exclude_defaults=True)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    stamped = manifest.model_copy(update=stamp_files(folder))
    (folder / MANIFEST_FILE).write_text(stamped.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return stamped


def _load_manifest(root: Path) -> PackManifest:
    if root.is_file():
        raise PackError(f"{root}: a file; an EditPack is a folder, give the one that `onceedit edit` wrote")
    if not root.is_dir():
        raise PackError(f"{root}: there is no such folder; make a pack with `onceedit edit`")
    file = root / MANIFEST_FILE
    if not file.is_file():
        raise PackError(f"{root}: not an EditPack (no {MANIFEST_FILE} in it); give the folder that has one")
    try:
        version = json.loads(_read_text(file)).get("format_version")
    except (json.JSONDecodeError, AttributeError) as error:
        raise PackError(f"{file}: not a JSON object ({error}); the pack is damaged, make it again") from error
    if version != FORMAT_VERSION:
        raise PackError(
            f"{file}: format version {version!r}, this package reads {FORMAT_VERSION}; "
            "use the version of onceedit-vllm that made the pack, or make the pack again"
        )
    return _parse(PackManifest, _read_text(file), file)


def _check_listed(root: Path, manifest: PackManifest) -> None:
    missing = [name for name in _REQUIRED if name not in manifest.files]
    if missing:
        raise PackError(f"{root / MANIFEST_FILE}: does not list {', '.join(missing)}; make the pack again")


def _parse(kind: type[Model], text: str, file: Path) -> Model:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise PackError(f"{file}: {where}: {first['msg']}; the pack is damaged, make it again") from error


def _parse_lines(kind: type[Model], file: Path) -> tuple[Model, ...]:
    return tuple(_parse(kind, line, file) for line in _read_text(file).split("\n") if line.strip())


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(f"{file}: cannot be read ({error}); the pack is damaged, make it again") from error
