"""Classes of ImageNet's development kit, read in a process of their own.

SciPy's parser of MATLAB's files can end its process by a segmentation fault when a file is damaged.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 300.0
"""Time limit of the parser."""


def read_classes(path: Path) -> dict[int, str]:
    """Read the WordNet id of each class number from the kit's meta.mat.

    Raises:
        ValueError: the file is damaged, or another one.
    """
    command = [sys.executable, "-m", "utils.prepare.devkit_classes", str(path.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=SECONDS, check=True)
        return {int(number): str(wnid) for number, wnid in json.loads(done.stdout)}
    except (subprocess.SubprocessError, TypeError) as error:
        raise ValueError("the file cannot be parsed") from error


def _print_classes(path: str) -> None:
    from scipy.io import loadmat

    synsets = loadmat(path, squeeze_me=True)["synsets"]
    print(json.dumps([(int(synset["ILSVRC2012_ID"]), str(synset["WNID"])) for synset in synsets]))


if __name__ == "__main__":
    _print_classes(sys.argv[1])
