"""Names of all files and folders that the project reads and writes."""

from pathlib import Path

from models.backbones.registry import DEFAULT_BACKBONE

DATASETS_DIR = Path("datasets")
WEIGHTS_DIR = Path("weights")
PROJECT_WEIGHTS_DIR = Path(__file__).resolve().parents[1] / WEIGHTS_DIR
"""The weights folder of the project, for scripts that run in any folder."""

# Data set: datasets/<Name>/jpg, datasets/<Name>/lab
IMAGES_FOLDER = "jpg"
LABELS_FOLDER = "lab"
QUERIES_FOLDER = "queries"
"""Folder of query images that are not in the database."""
QUERY_SUFFIX = "_query.txt"
LABELS_RECORD = "labels.json"
"""Record of labels that Prepare_Datasets.py wrote."""
DISTRACTORS_LIST = "distractors.txt"
MINI = "Mini"
MINI_SETTINGS = "mini.json"

# Weights: weights/ for the authors' backbone, weights/<backbone>/ for all other backbones
ATTENTION_WEIGHTS = "ContextAwareRegionalAttention_weights.pth"
PCA_COMPONENTS = "pca_components.npy"
PCA_MEAN = "pca_mean.npy"
NETWORK_RECORD = "network.json"

# Learned whitening: record, figure and saved state
PCA_RECORD = "pca.json"
PCA_SPECTRUM = "pca.png"
PCA_STATE = "pca_state.npz"

# Output of training
TRAINING_SETTINGS = "training.json"
TRAINING_STATE = "training_state.pth"
TRAINING_LOG = "training.jsonl"
TRAINING_CURVES = "training.png"
TENSORBOARD_FOLDER = "tensorboard"
CLASSIFIER = "classifier.pth"
CLASSIFIER_RECORD_SUFFIX = ".json"
CLASSIFIER_FEATURES = "classifier_features"

# Output of an evaluation
RESULTS = "results.json"
DESCRIPTORS = "descriptors.npz"
RANKINGS_FOLDER = "rankings"
RUN_FILE = "ranking.run"
SCORE_TABLE = "scores.csv"
RANKING_SUFFIX = ".rnk"

# Figures of an evaluation: one per query in each folder
RESULT_FIGURES = "results"
CURVE_FIGURES = "precision_recall"
ATTENTION_FIGURES = "attention"
FIGURE_SUFFIX = ".png"

# Index of a folder of images
SEARCH_INDEX = Path("search_index")
CATALOGUE = "catalogue.json"
INDEX_STORE = "descriptors"
INDEX_ATTENTION = "attention"
INDEX_LOCK = "lock"
INDEX_LOOKUP = "lookup"
LOOKUP_RECORD = "lookup.json"
INDEX_PENDING = "pending"
"""Descriptors that wait for Milvus."""
APPROXIMATE_FOLDER = "approximate"
APPROXIMATE_RECORD = "approximate.json"

# Descriptor store
STORE_SETTINGS = "store.json"
SHARD_PREFIX = "shard-"
SHARD_ROWS_SUFFIX = ".npy"
SHARD_RECORD_SUFFIX = ".json"


def features_lock(features: Path) -> Path:
    """Return the lock's file of a file of precomputed features, which lies beside it while it is written."""
    return features.with_name(f"{features.name}.lock")


def network_record_lock(folder: Path) -> Path:
    """Return the path of the lock of the network.json of a folder, which exists while it is written."""
    return folder / f".{NETWORK_RECORD}.lock"


def trained_weights(number: int, accuracy: float) -> str:
    """Return the file name of attention weights saved during training.

    Args:
        number: number of the training report, from 1.
        accuracy: validation accuracy of the report.
    """
    name = Path(ATTENTION_WEIGHTS)
    return f"{name.stem}_{number}_{accuracy:.4f}{name.suffix}"


def weights_folder(weights_dir: Path, backbone: str) -> Path:
    """Return the folder of the attention and whitening files of a backbone.

    The files of the authors' backbone are in the weights folder, as unpacked from their archive. Each other
    backbone has a subfolder of its name.
    """
    return weights_dir if backbone == DEFAULT_BACKBONE else weights_dir / backbone


def mini_folder(datasets_dir: Path, seed: int) -> Path:
    """Return the folder of the Mini benchmark of a seed; each seed has a separate folder."""
    return datasets_dir / (MINI if seed == 0 else f"{MINI}-seed{seed}")
