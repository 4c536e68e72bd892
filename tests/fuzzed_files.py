"""The kinds of files that the project reads: a small valid example and the loader of each."""

import io
import json
import math
import pickle
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from conftest import draw_image, write_query
from mutations import ARRAYS, DEEP, PLAIN, tensors
from PIL import Image

from Measure_OxfordParis import MeasureOptions
from models.attention_classifier import RegionFeatures
from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.data import imagenet_validation, labelled_images
from utils.data.google_landmarks import read_google_landmarks
from utils.data.mini import benchmark
from utils.data.oxford_paris import read_dataset
from utils.data.revisited import read_revisited_dataset
from utils.data.revisited_labels import as_json, read_labels, read_pickled_labels
from utils.descriptors.store import open_store
from utils.files.reading import read_text
from utils.image_index.catalogue import write_index
from utils.image_index.image_index import read_index
from utils.images.loading import InputImage, UnreadableImageError, image_size, read_image
from utils.labelling.collection import read_collection
from utils.labelling.table import queries_of_table
from utils.options.parser import read_settings
from utils.options.saved_options import from_json, to_json
from utils.prepare import download
from utils.processes import Processes
from utils.training import state as training_state
from utils.training.precomputed_features import precompute
from utils.weights.classifiers import Classifier, read_classifier, save_classifier
from utils.weights.networks import load_attention, load_whitening
from utils.whitening import state as pca_state
from utils.whitening.pca import StreamingPCA

PROCESSES = Processes(0, 1, torch.device("cpu"))
CHANNELS = 4


@dataclass(frozen=True)
class Kind:
    """A kind of file: how to write a folder with a valid example, and how to read and check it."""

    make: Callable[[Path], object]
    file: str
    load: Callable[[Path], object]
    form: str = "bytes"

    @property
    def files(self) -> dict[str, bytes]:
        """Bytes of all files of a valid folder, by path in the folder."""
        return _files_of(self.make)

    def tree(self):
        """Return the content of the valid file, or None if only its bytes are to be changed."""
        data = io.BytesIO(self.files[self.file])
        match self.form:
            case "json":
                return json.load(data)
            case "pickle":
                return pickle.load(data)
            case "torch":
                return torch.load(data, weights_only=True)
            case "npy":
                return [np.load(data)]
            case "npz":
                tree = dict(np.load(data))
                return tree | {"about": json.loads(str(tree["about"]))} if "about" in tree else tree
            case "shard":
                record = json.loads(self.files[self.file.replace(".npy", ".json")])
                return {"rows": np.load(data), "keys": record["keys"]}
            case _:
                return None

    def values(self):
        """Return replacements of a value."""
        return {
            "torch": PLAIN + tensors(),
            "npy": ARRAYS,
            "npz": PLAIN + ARRAYS,
            "shard": PLAIN + ARRAYS,
        }.get(self.form, PLAIN)

    def with_tree(self, tree) -> dict[str, bytes]:
        """Return the bytes of the files with a changed tree, empty if the form cannot hold it."""
        out = io.BytesIO()
        try:
            match self.form:
                case "json":
                    out.write(_json(tree))
                case "pickle":
                    pickle.dump(tree, out, 2)
                case "torch":
                    torch.save(tree, out)
                case "npy":
                    np.save(out, tree[0] if isinstance(tree, list) and tree else np.array(0))
                case "npz":
                    tree = {str(key): _array(value) for key, value in tree.items()}
                    np.savez(out, **tree)
                case "shard":
                    return self._shard(tree["rows"], tree)
        except (
            AttributeError,
            IndexError,
            KeyError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
            OverflowError,
        ):
            return {}
        return {self.file: out.getvalue()}

    def _shard(self, rows, tree) -> dict[str, bytes]:
        out = io.BytesIO()
        np.save(out, rows)
        record = {"keys": tree.get("keys"), "crc32": zlib.crc32(np.ascontiguousarray(rows).data)}
        return {self.file: out.getvalue(), self.file.replace(".npy", ".json"): _json(record)}


def _json(tree) -> bytes:
    return json.dumps(tree).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).encode()


def _array(value):
    return value if isinstance(value, np.ndarray) else np.array(_json(value).decode())


@lru_cache
def _files_of(make) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def head_and_optimizer():
    torch.manual_seed(0)
    head = ContextAwareRegionalAttention(CHANNELS)
    return head, torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def make_training_state(folder):
    head, optimizer = head_and_optimizer()
    for steps in range(2):
        for parameter in head.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        if not steps:
            optimizer.step()
    progress = training_state.Progress(2, 1.5, 3, 8, [dict.fromkeys(training_state.REPORTED, 0.5)], ["x.jpg"])
    classifier = Classifier(torch.ones(2, CHANNELS), torch.zeros(2)).state()
    settings = {"L": 3, "lr": 0.1}
    training_state.save_state(folder, head, optimizer, progress, settings, PROCESSES, classifier)


def load_training_state(folder):
    head, optimizer = head_and_optimizer()
    expected = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    progress = training_state.load_state(folder, head, optimizer, {"L": 3, "lr": 0.1}, PROCESSES)
    classifier = training_state.resume_classifier(folder, 2, CHANNELS, None)
    if classifier is not None:  # states of ImageNet have none
        assert all(torch.isfinite(tensor).all() for tensor in classifier.state().values())
        assert (classifier.weight.shape, classifier.bias.shape) == ((2, CHANNELS), (2,))
    assert all(type(value) is int and value >= 0 for value in (progress.step, progress.hits, progress.images))
    assert type(progress.loss) in (int, float) and math.isfinite(progress.loss)
    assert all(isinstance(path, str) for path in _list(progress.unreadable))
    for report in _list(progress.reports):
        assert all(isinstance(name, str) and type(value) in (int, float) for name, value in report.items())
    actual = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    assert actual == expected
    optimizer.step()
    for parameter in head.parameters():
        assert torch.isfinite(parameter).all() and parameter.dtype == torch.float32


def _list(value):
    assert isinstance(value, list)
    return value


def make_pca_state(folder):
    pca = StreamingPCA(CHANNELS)
    pca.add(np.random.default_rng(0).normal(size=(50, CHANNELS)))
    pca_state.save_state(folder / "pca_state.npz", pca, pca_state.PCAProgress(2, ["x.jpg"]), {"L": 3})


def load_pca_state(folder):
    pca, progress = pca_state.load_state(folder / "pca_state.npz", {"L": 3}, channels=CHANNELS, images=3)
    assert type(progress.done) is int and 0 <= progress.done <= 3
    assert all(isinstance(path, str) for path in _list(progress.unreadable))
    pca.add(np.random.default_rng(1).normal(size=(9, CHANNELS)))
    assert all(np.isfinite(array).all() for array in pca.state_dict().values())
    assert np.isfinite(pca.whitened_components(1)).all()


MADE_WITH = {
    "method": 2,
    "backbone": "efficientnet_lite0",
    "pooling": "rmac",
    "whiten": False,
    "S": 64,
    "L": 3,
}
MADE_WITH |= {"scales": [1.0], "precision": "float32", "backbone weights": "0123456789abcdef"}
KEYS = [f"{name}.png\x00100\x001000\x00" for name in "abc"]
SHARD = "shard-00000001-0123abcd.npy"


def make_store(folder):
    with mock.patch("secrets.token_hex", return_value="0123abcd"):
        store = open_store(folder, MADE_WITH)
    rows = np.random.default_rng(0).normal(size=(3, 8))
    store.add(KEYS, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    store.flush()
    store.read()
    return store


def load_store(folder):
    store = open_store(folder, MADE_WITH, tidy=True)
    check_rows(store.rows([key for key in KEYS if key in store]))


def check_rows(rows):
    values = rows[np.arange(len(rows))]
    assert values.dtype == np.float32 and values.ndim == 2 and len(values) == len(rows)
    assert np.isfinite(values).all() and (len(values) == 0 or values.shape[1] > 0)


def make_index(folder):
    store = make_store(folder / "descriptors")
    write_index(folder, Path("/nowhere/photos"), KEYS, MADE_WITH, store)


def load_index(folder):
    index = read_index(folder)
    assert isinstance(index.folder, Path)
    assert all(isinstance(name, str) for name in index.names) and len(index.names) == len(index.rows)
    check_rows(index.rows)
    count = len(index.names)
    assert index.count_changed(range(count)) <= count
    index.index_of(InputImage(folder / "a.png"))
    if count:
        nearest = index.nearest(np.ones(index.rows.shape[1], np.float32), 2, 0)
        assert all(math.isfinite(similarity) and 0 <= number < count for number, similarity in nearest)


IMAGES = [Path("/nowhere/train") / name for name in ("a.jpg", "b.jpg", "c.jpg")]


def features_of(index):
    return RegionFeatures(
        torch.full((1, 2, CHANNELS), 1.0), torch.ones(1, 2, CHANNELS), torch.ones(1, CHANNELS) * index
    )


def make_features(folder):
    def extract_from(start):
        yield from [features_of(0), None, features_of(2)][start:]

    precompute(folder / "f.npy", IMAGES, extract_from, {"L": 3}, channels=CHANNELS)


def make_unfinished_features(folder):
    make_features(folder)
    (folder / "f.npy").rename(folder / "f.npy.part")
    record = json.loads((folder / "f.npy.json").read_text())
    (folder / "f.npy.json").write_text(json.dumps(record | {"done": 2}))


def load_features(folder):
    def extract_from(start):
        return [features_of(index) for index in range(3)][start:]

    store = precompute(folder / "f.npy", IMAGES, extract_from, {"L": 3}, channels=CHANNELS)
    assert len(store.rows) == 3 and store.rows.shape[2] == CHANNELS and store.rows.dtype == np.float16
    assert all(type(index) is int and 0 <= index < 3 for index in _list(store.unreadable))
    for part in store.read(np.array([index for index in range(3) if index not in store.unreadable])):
        assert torch.isfinite(part).all()


def make_head(folder):
    torch.save(head_and_optimizer()[0].state_dict(), folder / "head.pth")


def make_head_of_2018(folder):
    state = head_and_optimizer()[0].state_dict()
    torch.save(state, folder / "head.pth", _use_new_zipfile_serialization=False)


def load_head(folder):
    head = load_attention(folder / "head.pth", CHANNELS, "tanh")
    for name, value in head_and_optimizer()[0].state_dict().items():
        loaded = head.state_dict()[name]
        assert loaded.shape == value.shape and loaded.dtype == torch.float32 and torch.isfinite(loaded).all()


def make_classifier(folder):
    classifier = Classifier(torch.ones(2, CHANNELS), torch.zeros(2), ["cat", "dog"])
    save_classifier(folder / "classifier.pth", classifier, {"backbone": "tiny"})


def load_classifier(folder):
    classifier = read_classifier(folder / "classifier.pth", CHANNELS, {"backbone": "tiny"})
    count = len(classifier.bias)
    assert (classifier.weight.shape, classifier.bias.shape) == ((count, CHANNELS), (count,))
    for tensor in classifier.state().values():
        assert tensor.dtype == torch.float32 and torch.isfinite(tensor).all()
    if classifier.classes is not None:
        assert len({str(name) for name in _list(classifier.classes)}) == count


def make_whitening(folder):
    np.save(folder / "pca_components.npy", np.eye(3, CHANNELS, dtype=np.float32))
    np.save(folder / "pca_mean.npy", np.full(CHANNELS, -0.5, np.float32))


def load_pca(folder):
    whitening = load_whitening(folder, CHANNELS)
    assert whitening.components.shape[1:] == (CHANNELS,) == whitening.negative_mean.shape
    assert torch.isfinite(whitening.components).all() and torch.isfinite(whitening.negative_mean).all()


def make_dataset(folder):
    (folder / "jpg").mkdir()
    (folder / "lab").mkdir()
    for seed, name in enumerate("abc"):
        draw_image(folder / "jpg" / f"{name}.png", seed, (8, 8))
    write_query(folder, "q_1", "oxc1_a 0 0.5 7.25 8", good="b", ok="c")


def load_dataset(folder):
    check_dataset(read_dataset(folder))


def check_dataset(dataset):
    for query in dataset.queries:
        assert query.image in dataset.query_images
        if query.box is not None:
            assert len(query.box) == 4
            assert all(type(side) is float and math.isfinite(side) for side in query.box)
        for names in (query.good, query.ok, query.junk):
            assert all(isinstance(name, str) and name for name in names)


LABELS = {
    "imlist": ["a", "b"],
    "qimlist": ["c"],
    "gnd": [{"bbx": [0.0, 0.5, 7.0, 8.0], "easy": [0], "hard": [], "junk": [1]}],
}


def make_pickled_labels(folder):
    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(LABELS, 2))


def make_pickled_arrays(folder):
    query = LABELS["gnd"][0] | {"easy": np.array([0]), "bbx": np.array([0.0, 0.5, 7.0, 8.0])}
    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(LABELS | {"gnd": [query]}, 4))


def load_pickled_labels(folder):
    check_labels(read_pickled_labels(folder / "gnd_roxford5k.pkl"))


def check_labels(labels):
    assert len(labels["gnd"]) == len(labels["qimlist"])
    assert all(type(name) is str and name for name in labels["imlist"] + labels["qimlist"])
    for query in labels["gnd"]:
        assert len(query["bbx"]) == 4 and all(type(s) is float and math.isfinite(s) for s in query["bbx"])
        for indices in (query["easy"], query["hard"], query["junk"]):
            assert all(type(index) is int and 0 <= index < len(labels["imlist"]) for index in indices)
    as_json(labels)


def make_revisited(folder):
    make_dataset(folder)
    (folder / "gnd_roxford5k.json").write_bytes(as_json(LABELS))
    (folder / "distractors.txt").write_text("b\n")


def load_revisited(folder):
    check_labels(read_labels(folder / "gnd_roxford5k.json"))
    dataset = read_revisited_dataset(folder)
    check_dataset(dataset)
    assert set(dataset.protocols) == {"easy", "medium", "hard"}


def make_validation(folder):
    (folder / "val" / "data").mkdir(parents=True)
    for name in ("a.JPEG", "b b.JPEG"):
        (folder / "val" / "data" / name).touch()
    (folder / "val" / "val.txt").write_text("a.JPEG 3\nb b.JPEG 9\n")


def load_validation(folder):
    images = imagenet_validation.read_validation_images(folder, 10, 5, 0)
    assert [path.name for path in images.paths] == ["a.JPEG", "b b.JPEG"]
    assert images.classes.dtype == np.int64 and ((images.classes >= 0) & (images.classes < 10)).all()


def make_label_table(folder):
    for name in ("a.png", "b b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "labels.csv").write_text('query,image,label,x1,y1,x2,y2\na.png,"b b.png",good,1,1,5,5.5\n')


def load_label_table(folder):
    images = read_collection(folder)
    names = {image.name for image in images.values()}
    for query in queries_of_table(folder / "labels.csv", folder, images):
        assert {query.image} | query.good | query.ok | query.junk <= names


def make_solution(folder):
    for name in ("index/0/0/0/000", "index/1/1/1/111", "test/2/2/2/222"):
        path = folder / f"{name}{'0' * 13}.jpg"
        path.parent.mkdir(parents=True)
        path.touch()
    zeros = "0" * 13
    lines = ("id,images,Usage", f"222{zeros},000{zeros} 111{zeros},Private", f"333{zeros},None,Ignored", "")
    (folder / "retrieval_solution_v2.1.csv").write_text("\n".join(lines))


def load_solution(folder):
    check_dataset(read_google_landmarks(folder))


def make_list(folder):
    for name in ("a.png", "b b.png", "c.png"):
        (folder / name).touch()
    (folder / "list.txt").write_text("a.png cat\nb b.png dog\nc.png dog\n")


def load_list(folder):
    images = labelled_images.read_classified_images(folder / "list.txt")
    for part in (images.training, images.validation):
        assert {path.name for path in part.paths} <= {"a.png", "b b.png", "c.png"}
        assert ((part.classes >= 0) & (part.classes < len(images.classes))).all()
    assert len(set(images.classes)) == len(images.classes) >= 2


def draw_nothing(folder, settings, workers=None):
    (folder / "mini.json").write_bytes(benchmark._encode(settings))


def make_mini(folder):
    with mock.patch.object(benchmark, "_draw", draw_nothing):
        benchmark.prepare_mini(folder, 0)


def load_mini(folder):
    with mock.patch.object(benchmark, "_draw", draw_nothing):
        assert benchmark.prepare_mini(folder, 0).is_dir()


CONTENT, URL, ETAG = bytes(range(200)), "http://localhost/x.tar", '"abc"'


class Server:
    """A server of CONTENT without a network, with the methods of urllib's openers and responses."""

    def open(self, request, timeout):
        headers = dict(request.header_items())
        start = 0
        if headers.get("If-range") == ETAG:
            start = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.status, self.length, self._body = (
            206 if start else 200,
            len(CONTENT) - start,
            io.BytesIO(CONTENT[start:]),
        )
        self.headers = {"ETag": ETAG, "Last-Modified": None, "Content-Range": None}
        if start:
            self.headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return self

    def read1(self, count):
        return self._body.read(count)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def make_download(folder):
    (folder / "x.tar.part").write_bytes(CONTENT[:50])
    record = {"url": URL, "length": len(CONTENT), "ETag": ETAG, "Last-Modified": None}
    (folder / "x.tar.part.json").write_text(json.dumps(record))


def load_download(folder):
    with (
        mock.patch.object(download, "build_opener", lambda _: Server()),
        mock.patch.object(download, "PAUSE", 0),
    ):
        assert download.download([URL], folder / "x.tar").read_bytes() == CONTENT


def make_image(suffix, mode="RGB", **options):
    def make(folder):
        pixels = np.random.default_rng(0).integers(0, 255, (13, 17, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).convert(mode)
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(folder / f"x{suffix}", exif=exif, **options)

    return make


def load_image(folder):
    (path,) = folder.iterdir()
    try:
        size = image_size(path)
    except UnreadableImageError:
        size = None
    pixels = read_image(path)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    assert size == pixels.shape[:2]


def make_config(folder):
    (folder / "results.json").write_text(json.dumps({"settings": to_json(MeasureOptions()), "mAP": 50.0}))


def load_config(folder):
    path = folder / "results.json"
    options = MeasureOptions(**from_json(MeasureOptions, read_settings(path), str(path)))
    assert MeasureOptions(**from_json(MeasureOptions, to_json(options), "x.json")) == options


def make_text(folder):
    (folder / "x.txt").write_text("naïve\n1\n")


def load_text(folder):
    assert "\0" not in read_text(folder / "x.txt")


KINDS: Mapping[str, Kind] = {
    "training state": Kind(make_training_state, "training_state.pth", load_training_state, "torch"),
    "pca state": Kind(make_pca_state, "pca_state.npz", load_pca_state, "npz"),
    "store settings": Kind(make_store, "store.json", load_store, "json"),
    "shard rows": Kind(make_store, SHARD, load_store, "shard"),
    "shard record": Kind(make_store, SHARD.replace(".npy", ".json"), load_store, "json"),
    "catalogue": Kind(make_index, "catalogue.json", load_index, "json"),
    "index rows": Kind(make_index, f"descriptors/{SHARD}", load_index, "shard"),
    "features": Kind(make_features, "f.npy", load_features, "npy"),
    "features record": Kind(make_features, "f.npy.json", load_features, "json"),
    "unfinished features": Kind(make_unfinished_features, "f.npy.part", load_features, "npy"),
    "unfinished features record": Kind(make_unfinished_features, "f.npy.json", load_features, "json"),
    "head": Kind(make_head, "head.pth", load_head, "torch"),
    "head of 2018": Kind(make_head_of_2018, "head.pth", load_head),
    "classifier": Kind(make_classifier, "classifier.pth", load_classifier, "torch"),
    "classifier record": Kind(make_classifier, "classifier.json", load_classifier, "json"),
    "pca components": Kind(make_whitening, "pca_components.npy", load_pca, "npy"),
    "pca mean": Kind(make_whitening, "pca_mean.npy", load_pca, "npy"),
    "query": Kind(make_dataset, "lab/q_1_query.txt", load_dataset),
    "good list": Kind(make_dataset, "lab/q_1_good.txt", load_dataset),
    "pickled labels": Kind(make_pickled_labels, "gnd_roxford5k.pkl", load_pickled_labels, "pickle"),
    "pickled arrays": Kind(make_pickled_arrays, "gnd_roxford5k.pkl", load_pickled_labels, "pickle"),
    "revisited labels": Kind(make_revisited, "gnd_roxford5k.json", load_revisited, "json"),
    "distractors": Kind(make_revisited, "distractors.txt", load_revisited),
    "val.txt": Kind(make_validation, "val/val.txt", load_validation),
    "label table": Kind(make_label_table, "labels.csv", load_label_table),
    "solution": Kind(make_solution, "retrieval_solution_v2.1.csv", load_solution),
    "list of images": Kind(make_list, "list.txt", load_list),
    "mini.json": Kind(make_mini, "Mini/mini.json", load_mini, "json"),
    "download": Kind(make_download, "x.tar.part.json", load_download, "json"),
    "config": Kind(make_config, "results.json", load_config, "json"),
    "text": Kind(make_text, "x.txt", load_text),
    **{
        f"image{suffix}{mode}": Kind(make_image(suffix, mode), f"x{suffix}", load_image)
        for suffix, mode in [
            *((".jpg", "RGB"), (".jpg", "CMYK"), (".png", "RGB"), (".png", "P"), (".png", "I;16")),
            *((".tif", "RGB"), (".webp", "RGB"), (".gif", "P"), (".bmp", "RGB"), (".ppm", "RGB")),
        ]
    },
}
