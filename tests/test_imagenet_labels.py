import numpy as np
import pytest
from scipy.io import savemat

from utils.data.imagenet import read_wnids
from utils.errors import UserError
from utils.prepare.imagenet_labels import list_from_devkit


@pytest.fixture
def devkit(tmp_path):
    """The two files of the kit, whose classes 1, 2 and 3 are the third, first and second in sorted order."""
    numbered = zip((1, 2, 3), (read_wnids()[index] for index in (2, 0, 1)), strict=True)
    synsets = np.array(list(numbered), [("ILSVRC2012_ID", "i4"), ("WNID", "U9")])
    savemat(tmp_path / "meta.mat", {"synsets": synsets})
    (tmp_path / "labels.txt").write_text("3\n1\n")
    return tmp_path / "labels.txt", tmp_path / "meta.mat"


def test_the_kits_numbers_become_indices_of_the_sorted_classes(devkit):
    assert list_from_devkit(*devkit) == "ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000002.JPEG 2\n"


@pytest.mark.parametrize("text", ["3\n1_0\n", "3\nx\n", "-1\n", "4\n", "\u0663\n"])
def test_labels_that_are_no_class_of_the_kit_are_refused(devkit, text):
    labels, classes = devkit
    labels.write_text(text)
    with pytest.raises(UserError, match="are not valid files of ILSVRC 2012"):
        list_from_devkit(labels, classes)


def test_a_file_on_which_the_parser_crashes_is_an_error(devkit):
    labels, classes = devkit
    data = bytearray(classes.read_bytes())
    assert len(data) == 616
    data[408] = 38  # scipy.io.loadmat ends the process with a segmentation fault
    classes.write_bytes(data)
    with pytest.raises(UserError, match=r"meta\.mat and .* are not valid files of ILSVRC 2012"):
        list_from_devkit(labels, classes)
