"""Names of the files and folders that the project reads and writes, all in one place."""

from pathlib import Path

from models.backbones import DEFAULT_BACKBONE

DATASETS_DIR = Path("datasets")
WEIGHTS_DIR = Path("weights")
PROJECT_WEIGHTS_DIR = Path(__file__).resolve().parents[1] / WEIGHTS_DIR
"""The project's, for what is run from anywhere."""

# a data set: datasets/<Name>/jpg, datasets/<Name>/lab
IMAGES_FOLDER = "jpg"
LABELS_FOLDER = "lab"
QUERY_SUFFIX = "_query.txt"
DISTRACTORS_LIST = "distractors.txt"
MINI = "Mini"
MINI_SETTINGS = "mini.json"

# weights/ for the authors' backbone, weights/<backbone>/ for the others
ATTENTION_WEIGHTS = "ContextAwareRegionalAttention_weights.pth"
PCA_COMPONENTS = "pca_components.npy"
PCA_MEAN = "pca_mean.npy"

# what a learned whitening tells of itself, and where its learning stands
PCA_RECORD = "pca.json"
PCA_SPECTRUM = "pca.png"
PCA_STATE = "pca_state.npz"

# a training's output
TRAINING_SETTINGS = "training.json"
TRAINING_STATE = "training_state.pth"
TRAINING_LOG = "training.jsonl"
TRAINING_CURVES = "training.png"
TENSORBOARD_FOLDER = "tensorboard"

# an evaluation's output
RESULTS = "results.json"
DESCRIPTORS = "descriptors.npz"
RANKINGS_FOLDER = "rankings"
RANKING_SUFFIX = ".rnk"

# an evaluation's figures, one a query in each folder
RESULT_FIGURES = "results"
CURVE_FIGURES = "precision_recall"
ATTENTION_FIGURES = "attention"
FIGURE_SUFFIX = ".png"

# an index of a folder of images
SEARCH_INDEX = Path("search_index")
CATALOGUE = "catalogue.json"
INDEX_STORE = "descriptors"
INDEX_LOCK = "lock"

# a descriptor store
STORE_SETTINGS = "store.json"
SHARD_PREFIX = "shard-"
SHARD_ROWS_SUFFIX = ".npy"
SHARD_RECORD_SUFFIX = ".json"


def features_lock(features: Path) -> Path:
    """Return the lock's file of a file of precomputed features, which lies beside it while it is written."""
    return features.with_name(f"{features.name}.lock")


def trained_weights(number: int, accuracy: float) -> str:
    """Attention weights of a training's report, by its number from 1 and its validation accuracy."""
    name = Path(ATTENTION_WEIGHTS)
    return f"{name.stem}_{number}_{accuracy:.4f}{name.suffix}"


def weights_folder(weights_dir: Path, backbone: str) -> Path:
    """Where the attention and whitening files of a backbone lie.

    The authors' four files lie in the weights folder itself, as their archive unpacks; every other backbone
    has a folder of its name in it.
    """
    return weights_dir if backbone == DEFAULT_BACKBONE else weights_dir / backbone


def mini_folder(datasets_dir: Path, seed: int) -> Path:
    """Where the Mini benchmark of a seed lies: a folder each, so that none replaces another's images."""
    return datasets_dir / (MINI if seed == 0 else f"{MINI}-seed{seed}")
