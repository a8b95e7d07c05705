"""The memory of merging checkpoints of an 8B width: peak resident, by `polyvec merge`.

    python bench/merge.py                      # six of 4 layers: 17 GB of disk, some minutes
    python bench/merge.py --models 2 --layers 1

Writes checkpoints of random bf16 weights (hidden 4,096, 128,256 tokens; the shape of bench/wide.py)
to a temporary place, and averages them with the comparison and without, each in a process of its
own. What is held does not grow with the layers, nor, but for names and shapes, with the models.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from wide import Writer

_MERGE = """
import sys
from contenders import peak_mb
from polyvec.cli.main import app
app(sys.argv[1:], standalone_mode=False)
print("peak_mb", peak_mb())
"""


def main() -> None:
    """Write checkpoints, merge them, and print peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--layers", type=int, default=4)
    stated = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        models = _checkpoints(Path(name), stated.models, stated.layers)
        for flag in ("--no-compare", "--compare"):
            output = Path(name) / "merged"
            facts = {"flag": flag, "models": stated.models, "layers": stated.layers}
            print(json.dumps(facts | {"peak_mb": _peak_mb(models, output, flag)}), flush=True)
            shutil.rmtree(output)


def _checkpoints(folder: Path, count: int, layers: int) -> list[Path]:
    """Write one and copy it: what is in the files does not matter, that they are others does."""
    from polyvec.hub import resolve
    from polyvec.model.files import open_model
    from polyvec.publish.export import export

    place = resolve("smollm2")
    export(open_model(place.path, place.facts), folder / "small", "folder", "BF16")
    models = [folder / f"model-{number}" for number in range(count)]
    Writer(folder / "small", models[0]).write(layers)
    for model in models[1:]:
        shutil.copytree(models[0], model)
    return models


def _peak_mb(models: list[Path], output: Path, flag: str) -> int:
    words = ["merge", *map(str, models), "--output", str(output), flag]
    command = [sys.executable, "-c", _MERGE, *words]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    )
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
