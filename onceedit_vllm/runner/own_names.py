"""A prompt as the plug-in knows it: by the edits' own names, and not in capitals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onceedit_vllm.plugin.forms import replace_forms
from onceedit_vllm.wordings.names import names_of

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord
    from onceedit_vllm.plugin.scope import Named

#: Words in capitals of a text without a small letter that is taken for shouted; fewer may be names.
_SHOUTED = 3
_CAPITALS = re.compile(r"[^\W\d_]{2,}")
#: A name of fewer letters may be another word.
_LEAST = 3


def by_own_names(text: str, named: Named, edits: Sequence[EditRecord]) -> str:
    """What the plug-in reads of a text that names edits.

    It was taught the edit's name as it is written there: by another form of it, it may say another edit's
    answer, and it has seen no text in capitals.

    Args:
        text: What is asked.
        named: What it names.
        edits: The pack's.
    """
    own = {name: name for index in named.edits for name in names_of(edits[index])} if named.forms else {}
    text = replace_forms(text, own | {form: meant.name for form, meant in named.forms.items()})
    loud = _is_shouted(text)
    text = text.lower() if loud else text
    names = (name for index in named.edits for name in names_of(edits[index]) if len(name) >= _LEAST)
    written = (((name.lower() if loud else name.upper()), name) for name in names)
    said = {form: name for form, name in written if form != name and form in text}
    if not said:
        return text
    longest = sorted(said, key=lambda name: (-len(name), name))
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)"
    return re.sub(pattern, lambda match: said[match[0]], text)


def _is_shouted(text: str) -> bool:
    words = [word for word in _CAPITALS.findall(text) if word.upper() != word.lower()]
    return text == text.upper() and len(words) >= _SHOUTED
