"""A prompt as the plug-in knows it: by the edits' own names, and not in capitals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onceedit_vllm.wordings.names import names_of

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord
    from onceedit_vllm.plugin.scope import Named

#: Words of a text without a small letter that is taken for shouted; fewer may be names.
_SHOUTED = 3
_WORD = re.compile(r"[^\W\d_]{2,}")


def by_own_names(text: str, named: Named, edits: Sequence[EditRecord]) -> str:
    """What the plug-in reads of a text that names edits.

    It was taught the edit's name as it is written there: by another form of it, it may say another edit's
    answer, and it has seen no text in capitals.

    Args:
        text: What is asked.
        named: What it names.
        edits: The pack's.
    """
    for form, meant in named.forms.items():
        text = text.replace(form, edits[meant[0]].subject or form)
    loud = text == text.upper() and len(_WORD.findall(text)) >= _SHOUTED
    text = text.lower() if loud else text
    for index in named.edits:
        for name in names_of(edits[index]):
            said = name.lower() if loud else name.upper()
            if said != name and said in text:
                text = re.sub(rf"(?<!\w){re.escape(said)}", name.replace("\\", r"\\"), text)
    return text
