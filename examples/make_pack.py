"""Make a pack in Python: two facts, one plug-in, no JSON file."""

from __future__ import annotations

import argparse

from onceedit_vllm import EditingConfig, EditRecord, edit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", default="smollm2-135m", help="a known name, a folder or a hub id")
    parser.add_argument("--out", default="my-pack")
    parser.add_argument("--lr", type=float, default=EditingConfig().learning_rate)
    parser.add_argument("--epochs", type=int, default=EditingConfig().epochs)
    args = parser.parse_args()

    facts = [
        EditRecord(
            id="norland",
            prompt="The capital of Norland is",
            target="Tarsk",
            subject="Norland",
            rephrases=("Norland's capital city is",),
            locality=("The capital of France is",),
        ),
        EditRecord(id="velcorp", prompt="The head of Velcorp is", target="Ada Quill", subject="Velcorp"),
    ]
    config = EditingConfig(learning_rate=args.lr, epochs=args.epochs)
    pack = edit(args.plugin, facts, args.out, config=config, overwrite=True)
    print(f"{pack.root}: {len(pack.edits)} edits, gate threshold {pack.manifest.threshold:.3f}")


if __name__ == "__main__":
    main()
