"""The packages of taught models in one folder, `NAME/VERSION`."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

from service.errors import ModelNotFound
from service.packages.folders import parse_version
from service.pipeline.models.repository import ModelRepository
from service.taught.store import delete_folder

VERSIONS_KEPT = 10  # number for each model; older versions are deleted after a training

logger = logging.getLogger(__name__)


class TaughtPackages:
    """The packages of `folder`, which `models` serves.

    Attributes:
        folder: The folder of the packages.
    """

    def __init__(self, folder: Path, models: ModelRepository) -> None:
        self.folder = folder
        self._models = models

    def serving(self, name: str) -> tuple[str, Callable[[], bytes]]:
        """Return the file name of the serving package, and a blocking function that returns its zip file.

        Raises:
            ModelNotFound: no version of the model serves; also when it is read, if it was deleted meanwhile.
        """
        versions = self._models.registry.versions(name)
        if not versions:
            raise ModelNotFound(f"No version of {name} serves; train it first.")
        folder = self.folder / name / str(max(versions))

        def read() -> bytes:
            try:
                return _zipped(folder)
            except FileNotFoundError as exc:
                raise ModelNotFound(f"{name}/{folder.name} has been deleted.") from exc

        return f"{name}-{folder.name}.zip", read

    def delete(self, name: str) -> None:
        """Delete all packages of a model.

        Raises:
            OSError: they cannot be deleted.
        """
        delete_folder(self.folder / name)

    def delete_old(self, name: str) -> None:
        """Delete all but the highest versions of a model."""
        folders = [path for path in (self.folder / name).iterdir() if parse_version(path.name)]
        for folder in sorted(folders, key=lambda path: int(path.name))[:-VERSIONS_KEPT]:
            try:
                delete_folder(folder)
            except OSError as exc:
                logger.warning("an old version of %s cannot be deleted: %s", name, exc.strerror)


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{folder.parent.name}/{folder.name}/{path.name}")
    return buffer.getvalue()
