"""Irregular verbs that prompts about facts use."""

from __future__ import annotations

PARTICIPLES = {
    "wrote": "written", "drew": "drawn", "sang": "sung", "won": "won", "built": "built", "made": "made",
    "led": "led", "ran": "run", "took": "taken", "gave": "given", "found": "found", "began": "begun",
    "bought": "bought", "sold": "sold", "held": "held", "taught": "taught", "beat": "beaten",
}  # fmt: skip

INFINITIVES = {
    "won": "win", "sank": "sink", "wrote": "write", "sang": "sing", "took": "take", "gave": "give",
    "ran": "run",
    "led": "lead", "built": "build", "made": "make", "found": "find", "began": "begin", "became": "become",
    "went": "go", "came": "come", "grew": "grow", "spoke": "speak", "taught": "teach", "fought": "fight",
    "met": "meet", "fell": "fall", "flew": "fly", "held": "hold", "sold": "sell", "bought": "buy",
    "spent": "spend", "had": "have", "lost": "lose", "got": "get", "said": "say", "saw": "see",
    "left": "leave",
    "threw": "throw", "wore": "wear", "chose": "choose", "knew": "know", "told": "tell", "paid": "pay",
    "sent": "send", "rose": "rise", "drove": "drive", "broke": "break", "ate": "eat", "stood": "stand",
    "did": "do", "kept": "keep", "felt": "feel", "brought": "bring", "shot": "shoot", "swam": "swim",
    "thought": "think", "caught": "catch", "drew": "draw", "hid": "hide", "rode": "ride", "sat": "sit",
}  # fmt: skip

#: The same in the past.
UNCHANGING = frozenset(
    ("beat", "cost", "cut", "hit", "let", "put", "quit", "read", "run", "set", "shut", "spread")
)
