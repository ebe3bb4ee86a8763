"""Live knowledge editing for served LLMs."""
