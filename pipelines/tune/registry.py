"""A folder of bundles by name and version: what a search or a training leaves for evaluation and serving.

registry/<name>/<name>-0001/    a bundle, whole or not there
registry/<name>/<name>-0002/
"""

import hashlib
import re
from pathlib import Path

from models.config import ConfigError
from pipelines.bundle import load_bundle
from pipelines.paths import folder_name
from pipelines.places import fetch, is_whole, place
from pipelines.runs import claim, written

SAME = ("schema.json", "config.json", "weights.safetensors", "provenance.json")  # by which a bundle is known again
BESIDE = "history.json"  # what a training run leaves beside its bundle goes along
PATIENCE = 60.0  # seconds: copying a bundle is short, and who registers has worked long


def register(bundle: Path, registry: Path, name: str) -> Path:
    """Copies a bundle into the registry as the next version of `name`; the version appears whole or not at all.

    A bundle that is the newest version already is not copied again.

    Returns:
        folder of the version.

    Raises:
        ConfigError: the bundle is not whole, the name is no folder name, or others register for longer than a minute.
    """
    folder_name(name)
    load_bundle(bundle)
    folder = place(registry) / name
    with claim(folder, patience=PATIENCE):
        number = max(_numbers(folder, name), default=0)
        newest = folder / f"{name}-{number:04d}"
        if number and all(_content(newest / part) == _content(bundle / part) for part in SAME):
            return newest
        version = folder / f"{name}-{number + 1:04d}"
        with written(version) as draft:
            fetch(bundle, draft)
            if (bundle.parent / BESIDE).is_file():
                fetch(bundle.parent / BESIDE, draft / BESIDE)
    return version


def versions(registry: Path, name: str) -> list[Path]:
    """Folders of all versions of a bundle, the newest first.

    Raises:
        ConfigError: no such name, with those that there are.
    """
    numbers = _numbers(place(registry) / name, name)
    if not numbers:
        there = sorted(path.name for path in place(registry).glob("*") if _numbers(path, path.name))
        raise ConfigError(f"no bundle `{name}` in {registry}; there are: {', '.join(there) or 'none'}.")
    return [numbers[number] for number in sorted(numbers, reverse=True)]


def _content(file: Path) -> bytes | None:
    """Known again by; None for what is not there, in a damaged version say."""
    return hashlib.blake2b(file.read_bytes()).digest() if file.is_file() else None


def _numbers(folder: Path, name: str) -> dict[int, Path]:
    """Folders by version."""
    found = {path: re.fullmatch(re.escape(name) + r"-(\d{4,})", path.name) for path in folder.glob("*")}
    return {int(match[1]): path for path, match in found.items() if match and is_whole(path)}
