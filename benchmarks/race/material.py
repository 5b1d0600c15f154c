"""What is served and posted: a package with made weights, and clips. Made on the first run, and kept."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from benchmarks.decode_clips import Recipe, make
from service.errors import PackageError
from service.manifest import GRAPH_FILE, read_manifest

ROOT = Path(__file__).parents[2]
SEEDS = range(1, 7)  # so many different clips of each kind

_X264 = {"crf": "23", "preset": "veryfast", "x264-params": "sliced-threads=0:slices=1:keyint=250:bframes=3"}
SHORT, LONG = "short", "long"
KINDS = {
    SHORT: Recipe("short", "320x240, 48 frames", 320, 240, 48, Fraction(12), "libx264", options=_X264),
    LONG: Recipe("long", "480x360, 300 frames", 480, 360, 300, Fraction(30), "libx264", options=_X264),
}


def made_clips(kind: str, cache: Path) -> list[Path]:
    """The clips of one kind."""
    recipe = KINDS[kind]
    recipes = [replace(recipe, name=f"{recipe.name}-{seed}", seed=seed) for seed in SEEDS]
    return [make(recipe, cache / "clips") for recipe in recipes]


def made_package(cache: Path, say: Callable[[str], object]) -> Path:
    """The 50-layer bLVNet-TAM in int8, as the code that is here exports it: `MODELS/NAME/VERSION`."""
    models = cache / f"models-{_digest_of_exporter()}"
    if not models.exists():
        # Only exporting needs torch.
        from benchmarks.inference_networks import MAIN, made_int8

        say(f"exporting {MAIN} to int8, which takes minutes, into {models}")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made_int8(MAIN, Path(scratch)).rename(models)
    return package_in(models)


def package_in(models: Path) -> Path:
    """The only package of a folder `MODELS`.

    Raises:
        PackageError: there is none, or several.
    """
    graphs = sorted(models.glob(f"*/*/{GRAPH_FILE}"))
    if len(graphs) != 1:
        raise PackageError(f"{models} must hold one package, there are {len(graphs)}")
    return graphs[0].parent


def described(package: Path) -> dict[str, object]:
    """What is served."""
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
