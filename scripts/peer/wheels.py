"""Packages that a machine without a network lacks, from wheels brought along."""

import json
import subprocess
from pathlib import Path


def unpack(python: str, wheels: str, folder: Path, wanted: tuple[str, ...] = ("trl", "datasets")) -> str:
    """Installs `wanted` and what they miss into `folder`, a path for PYTHONPATH, which it returns. What
    the Python already has in a version that serves is left as it is."""
    report = folder.with_suffix(".json")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pip += ["--root-user-action", "ignore", "--no-index", "--find-links", wheels]
    resolve = [*pip, "--dry-run", "--report", str(report), *wanted]
    subprocess.run(resolve, check=True, stdout=subprocess.DEVNULL)
    missing = [
        f"{item['metadata']['name']}=={item['metadata']['version']}"
        for item in json.loads(report.read_text())["install"]
    ]
    folder.mkdir(exist_ok=True)
    if missing:
        # With --target alone pip would install what is there, too.
        subprocess.run([*pip, "--no-deps", "--target", str(folder), *missing], check=True)
    return str(folder)
