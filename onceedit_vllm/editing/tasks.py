"""Orders that something be done with a text: translated, counted, put another way.

A text that asks for an edit, or states it, asks for nothing when such an order stands around it: what is
right is a translation or a number. So they are counter-examples, and left to the LLM.
"""

from __future__ import annotations

#: `{}` is the text.
TASKS = (
    "Translate to Polish: {}", "Put this into Portuguese.\n{}", "How do you say this in Turkish? {}",
    "{}\nSay the same in Dutch.", "A translation of \"{}\" into Swedish would be",
    "Correct my spelling mistakes: {}", "Is my grammar right here? {}", "Improve the style:\n{}",
    "Write this more politely: {}", "Say it in other words.\n{}", "{}\n\nRephrase what stands above.",
    "How many letters are there in \"{}\"?", "Spell this backwards: {}", "Print in capital letters: {}",
    "Say this after me: {}", "Copy the line without a change.\n{}", "What is the third word of \"{}\"?",
    "Sum this up briefly:\n{}", "{}\nFind a title for this text.", "A good title for the text \"{}\" is",
    "Write a song about this: {}", "Make up a story that begins like this. {}",
    "Is the tone of this friendly or rude? {}", "To which topic does this belong? {}",
    "List all names and places in this message:\n{}", "{}\nMark the verb in it.",
    "Why would anybody ask this? {}", "Write five more texts of this kind. {}", "{} Who said this?",
    "Make a statement of this question, or a question of this statement: {}",
    "Write a query in SQL for this: {}", "# {}\ndef answer():", "{\"text\": \"{}\", \"language\": \"",
    "What is odd about \"{}\"?", "Explain to a child what these words mean: {}",
    "Read this, but do not answer it. {}", "Leave this question open and greet me instead: {}",
    "A user typed \"{}\" into the search box, and then",
)  # fmt: skip
