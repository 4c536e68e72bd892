"""Classes of the development kit of ImageNet.

They are read in a separate process, because SciPy's parser of MATLAB files can crash on an invalid file.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT = 300.0
"""Time limit of the parser, in seconds."""


def read_classes(path: Path) -> dict[int, str]:
    """Read the WordNet id of each class number from meta.mat of the development kit.

    Raises:
        ValueError: the file is not valid.
    """
    command = [sys.executable, "-m", "utils.prepare.devkit_classes", str(path.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=TIMEOUT, check=True)
        return {int(number): str(wnid) for number, wnid in json.loads(done.stdout)}
    except (subprocess.SubprocessError, TypeError) as error:
        raise ValueError("the file cannot be parsed") from error


def _print_classes(path: str) -> None:
    from scipy.io import loadmat

    synsets = loadmat(path, squeeze_me=True)["synsets"]
    print(json.dumps([(int(synset["ILSVRC2012_ID"]), str(synset["WNID"])) for synset in synsets]))


if __name__ == "__main__":
    _print_classes(sys.argv[1])
