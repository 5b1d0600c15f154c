"""The package and the videos of the comparison. Both are generated on the first run and cached."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from benchmarks.decode.videos import Recipe, make
from service.errors import PackageError
from service.packages.manifest import GRAPH_FILE, read_manifest

ROOT = Path(__file__).parents[2]
SEEDS = range(1, 7)  # one video of each kind per seed

_X264 = {"crf": "23", "preset": "veryfast", "x264-params": "sliced-threads=0:slices=1:keyint=250:bframes=3"}
SHORT, LONG = "short", "long"
KINDS = {
    SHORT: Recipe("short", "320x240, 48 frames", 320, 240, 48, Fraction(12), "libx264", options=_X264),
    LONG: Recipe("long", "480x360, 300 frames", 480, 360, 300, Fraction(30), "libx264", options=_X264),
}


def made_clips(kind: str, cache: Path) -> list[Path]:
    """Paths of the videos of one kind."""
    recipe = KINDS[kind]
    recipes = [replace(recipe, name=f"{recipe.name}-{seed}", seed=seed) for seed in SEEDS]
    return [make(recipe, cache / "clips") for recipe in recipes]


def made_package(cache: Path, say: Callable[[str], object]) -> Path:
    """Folder `MODELS/NAME/VERSION` of the 50-layer bLVNet-TAM in int8, exported by the current code."""
    models = cache / f"models-{_digest_of_exporter()}"
    if not models.exists():
        # Only the export needs torch.
        from benchmarks.inference.networks import MAIN, export_random_int8

        say(f"exporting {MAIN} to int8, which takes minutes, into {models}")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            export_random_int8(MAIN, Path(scratch)).rename(models)
    return package_in(models)


def package_in(models: Path) -> Path:
    """The single package in a folder `MODELS`.

    Raises:
        PackageError: the folder contains no package, or several.
    """
    graphs = sorted(models.glob(f"*/*/{GRAPH_FILE}"))
    if len(graphs) != 1:
        raise PackageError(f"{models} must contain one package, not {len(graphs)}")
    return graphs[0].parent


def described(package: Path) -> dict[str, object]:
    """Identify a package in the results."""
    manifest = read_manifest(package)
    return {
        "name": manifest.name,
        "architecture": manifest.architecture,
        "precision": manifest.precision,
        "sha256": manifest.sha256,
    }


def _digest_of_exporter() -> str:
    digest = hashlib.sha256()
    for path in sorted((ROOT / "model_export").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
