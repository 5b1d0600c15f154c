"""Teach a running service your own labels, and classify a new clip with them.

BLVNET_TEACH_DIR=taught blvnet serve
python examples/teach.py 127.0.0.1:8000 CLIPS NEW_CLIP

CLIPS has a folder for each label, with at least two clips: CLIPS/wave/1.mp4, CLIPS/clap/1.mp4, ...
"""

from __future__ import annotations

import sys
from pathlib import Path

from blvnet_client import BlvnetClientError, Client

NAME = "my-actions"


def main(server: str, folder: str, new_clip: str) -> None:
    """Add the clips as examples, train, print how good the model is, and use it."""
    labels = [path for path in sorted(Path(folder).iterdir()) if path.is_dir()]
    with Client(server) as client:
        for label in labels:
            for clip in sorted(label.iterdir()):
                # The same clip twice is one example, so this can be run again with more clips.
                client.add_example(NAME, label.name, clip)
        trained = client.train(NAME)
        accuracy = trained.report["accuracy"]  # each clip labelled by a model that was learned without it
        right = f"{accuracy['right']} of {accuracy['clips']} clips right"
        print(f"{trained.name} version {trained.version}: {right}")

        result = client.classify(new_clip, model=NAME)
        # `unsure` is true for clips that resemble none of the examples.
        print(f"{new_clip}: {'unsure' if result.unsure else result.best.label} ({result.best.score:.0%})")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BlvnetClientError as error:
        sys.exit(str(error))
