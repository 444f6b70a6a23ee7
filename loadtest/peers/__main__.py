"""Installs the other gateways, each in an environment of its own under this folder.

python -m loadtest.peers
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
LITELLM = "litellm[proxy]==1.109.1"
PORTKEY = "@portkey-ai/gateway@1.15.2"


def litellm() -> None:
    """With uv, because only uv can loosen the pins named in `overrides.txt`."""
    folder = HERE / ".venv-litellm"
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    _run(str(python), "-m", "pip", "install", "--quiet", "uv")
    uv = str(folder / "bin" / "uv")
    overrides = str(HERE / "overrides.txt")
    _run(uv, "pip", "install", "--python", str(python), "--override", overrides, LITELLM)


def portkey(npm: str) -> None:
    _run(
        npm,
        "install",
        "--no-save",
        "--no-package-lock",
        "--ignore-scripts",
        "--prefix",
        ".",
        PORTKEY,
    )


def _run(*command: str) -> None:
    print(" ".join(command), flush=True)
    subprocess.run(command, cwd=HERE, check=True)


def main() -> int:
    litellm()
    npm = shutil.which("npm")
    if npm is None:
        print("npm is not there: Portkey is left out")
    else:
        portkey(npm)
    return 0


if __name__ == "__main__":
    sys.exit(main())
