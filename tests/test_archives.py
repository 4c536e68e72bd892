import bz2
import gzip
import io
import lzma
import os
import random
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pytest

from utils.errors import UserError
from utils.prepare.archives import Limits, members, unpack

FILES = {"jpg/a.jpg": b"first", "jpg/deep/b.jpg": bytes(range(256)) * 1000, "readme.txt": b""}
UNREADABLE = "unreadable or incomplete: download it again"
COMPRESSORS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def same_path(name):
    return name


def member(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(*contents, tar_format=tarfile.PAX_FORMAT, **options):
    """Return the bytes of a tar file.

    Args:
        contents: results of `member`, whose headers may contradict their data.
        tar_format: of the headers.
        options: of `tarfile.open`.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format, **options) as tar:
        for info, data in contents:
            tar.addfile(info)
            tar.fileobj.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
            tar.offset += len(data) + -len(data) % tarfile.BLOCKSIZE
    return buffer.getvalue()


def tar_of_files(files):
    return tar_of(*(member(name, data) for name, data in files.items()))


def zip_of(*contents, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as zipped:
        for name, data in contents:
            zipped.writestr(name, data)
    return buffer.getvalue()


def zip_member(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def tree(folder):
    """Return what is below a folder by path: bytes of a file, target of a link, None for a folder."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            contents[name] = os.readlink(path)  # noqa: PTH115  expected targets are strings
        else:
            contents[name] = path.read_bytes() if path.is_file() else None
    return contents


def files_of(folder):
    return {name: data for name, data in tree(folder).items() if data is not None}


@pytest.fixture
def draft(tmp_path):
    """A folder to unpack to, deep enough that paths out of it end beside `archive`."""
    folder = tmp_path / "world" / "inner" / "draft"
    folder.mkdir(parents=True)
    (tmp_path / "world" / "precious.txt").write_text("precious")
    return folder


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "world").mkdir(exist_ok=True)
    return tmp_path / "world" / "archive"


def outside(archive, draft):
    below = draft.relative_to(archive.parent).as_posix() + "/"
    return {name: data for name, data in tree(archive.parent).items() if not name.startswith(below)}


def refused(archive, data, draft, *texts, written=(), target_path=same_path, **options):
    """Check that unpacking is refused, and writes nothing outside the draft.

    Args:
        archive: the file to write and unpack.
        data: its bytes.
        draft: the folder to unpack to.
        texts: in the message, besides the name of the archive.
        written: paths of the files that are in the draft afterwards.
        target_path: see `unpack`.
        options: of `unpack`.
    """
    archive.write_bytes(data)
    before = outside(archive, draft)
    with pytest.raises(UserError) as caught:
        unpack(archive, draft, target_path, **options)
    for text in (*texts, str(archive)):
        assert text in str(caught.value)
    assert outside(archive, draft) == before
    assert not Path("/absolute.txt").exists()
    assert set(files_of(draft)) == set(written)


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_tar_is_unpacked_with_any_compression_and_name(archive, draft, suffix):
    archive.write_bytes(COMPRESSORS[suffix](tar_of_files(FILES)))
    assert unpack(archive, draft, same_path) == len(FILES)
    assert files_of(draft) == FILES
    assert list(members(archive)) == list(FILES)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_folders_extended_headers_and_leading_dots_are_no_members(archive, draft, tar_format):
    long = "long/" * 15 + "é" * 30 + ".jpg"
    contents = [
        member("./", type=tarfile.DIRTYPE),
        member("../", type=tarfile.DIRTYPE),
        member("empty/", type=tarfile.DIRTYPE),
        member("./jpg//a.jpg", b"data"),
        member(long, b"long"),
    ]
    archive.write_bytes(tar_of(*contents, tar_format=tar_format, pax_headers={"comment": "x" * 3000}))
    assert unpack(archive, draft, same_path) == 2
    assert files_of(draft) == {"jpg/a.jpg": b"data", long: b"long"}
    assert not (draft / "empty").exists()


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_zip_gives_its_files(archive, draft, method):
    archive.write_bytes(zip_of(("jpg/", b""), *FILES.items(), method=method))
    assert unpack(archive, draft, same_path) == len(FILES)
    assert files_of(draft) == FILES
    assert list(members(archive)) == list(FILES)


def test_files_that_were_written_by_unix_tools_into_a_zip_are_regular(archive, draft):
    archive.write_bytes(zip_of((zip_member("a.jpg", stat.S_IFREG | 0o600), b"data")))
    assert unpack(archive, draft, same_path) == 1


def test_archives_without_members_give_nothing(archive, draft):
    for data in (tar_of(), zip_of()):
        archive.write_bytes(data)
        assert unpack(archive, draft, same_path) == 0
        assert tree(draft) == {}


def test_members_are_written_to_their_target_paths_and_those_without_are_not_written(archive, draft):
    archive.write_bytes(gzip.compress(tar_of_files(FILES)))

    def flat(name):
        return PurePosixPath("flat", name.name) if name.suffix == ".jpg" else None

    assert unpack(archive, draft, flat) == 2
    assert tree(draft) == {
        "flat": None,
        "flat/a.jpg": FILES["jpg/a.jpg"],
        "flat/b.jpg": FILES["jpg/deep/b.jpg"],
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_files_can_be_read_by_all_written_by_their_owner_and_run_by_nobody(archive, draft):
    archive.write_bytes(tar_of(member("run", b"#!", mode=0o7777), member("hidden", b"", mode=0)))
    mask = os.umask(0o077)
    try:
        unpack(archive, draft, same_path)
    finally:
        os.umask(mask)
    assert {stat.S_IMODE((draft / name).stat().st_mode) for name in ("run", "hidden")} == {0o644}


def test_names_come_before_the_rest_of_the_archive_is_read(archive):
    noise = random.Random(0).randbytes(500_000)
    full = gzip.compress(tar_of(member("a.jpg", b"a"), member("b.jpg", b"b"), member("c.jpg", noise)))
    archive.write_bytes(full[: len(full) // 2])
    names = members(archive)
    assert [next(names), next(names)] == ["a.jpg", "b.jpg"]
    with pytest.raises(UserError, match=UNREADABLE):
        list(names)


def test_nested_tars_are_unpacked_in_passing(archive, draft):
    inner = {f"n0{i}": {f"n0{i}_{j}.JPEG": b"%d %d" % (i, j) for j in range(3)} for i in range(2)}
    outer = {f"{name}.tar": tar_of_files(files) for name, files in inner.items()} | {"notes.txt": b"notes"}
    archive.write_bytes(tar_of_files(outer))
    asked = []

    def target_path(name):
        asked.append(str(name))
        return None if name.name == "n00_1.JPEG" else name

    expected = {f"{folder}/{name}": data for folder, files in inner.items() for name, data in files.items()}
    expected["notes.txt"] = b"notes"
    assert unpack(archive, draft, target_path, nested=True) == 6
    assert asked == list(expected)
    del expected["n00/n00_1.JPEG"]
    assert files_of(draft) == expected
    assert list(members(archive)) == list(outer)


def test_only_one_level_of_nesting_is_unpacked_and_only_on_demand(archive, draft):
    innermost = tar_of_files({"a.jpg": b"a"})
    inner = tar_of_files({"inner.tar": innermost})
    archive.write_bytes(zip_of(("sub/outer.tar", inner)))
    assert unpack(archive, draft, same_path, nested=True) == 1
    assert files_of(draft) == {"sub/outer/inner.tar": innermost}
    (draft / "plain").mkdir()
    assert unpack(archive, draft / "plain", same_path) == 1
    assert files_of(draft / "plain") == {"sub/outer.tar": inner}


UNSAFE_NAMES = [
    "/absolute.txt",
    "//absolute.txt",
    "../outside.txt",
    "a/../../../outside.txt",
    "a/..",
    "..\\outside.txt",
    "a\\b.txt",
    "C:/drive.txt",
    "c:drive.txt",
    "new\nline.txt",
    "escape\x1b[2J.txt",
    "delete\x7f",
    ".",
]


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("wanted", [True, False])
def test_a_tar_with_a_name_that_could_lead_out_is_refused_whether_wanted_or_not(archive, draft, name, wanted):
    target_path = same_path if wanted else lambda name: name if name.name == "good.txt" else None
    data = tar_of(member("good.txt", b"good"), member(name, b"bad"), member("late.txt", b"late"))
    refused(archive, data, draft, "refused", ascii(name), written=["good.txt"], target_path=target_path)


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_a_zip_with_a_name_that_could_lead_out_is_refused(archive, draft, name):
    refused(archive, zip_of((name, b"bad")), draft, "refused", ascii(name))


def test_a_nul_in_a_name_is_refused(archive, draft):
    data = zip_of(("aXb.txt", b"bad")).replace(b"aXb.txt", b"a\0b.txt")
    refused(archive, data, draft, "refused", ascii("a\0b.txt"))
    refused(archive, tar_of(member("a", b"", pax_headers={"path": "a\0b"})), draft, "refused", ascii("a\0b"))


def test_a_nested_name_that_could_lead_out_is_refused(archive, draft):
    inner = tar_of(member("../../../outside.txt", b"bad"))
    refused(archive, tar_of(member("n01.tar", inner)), draft, "refused", "../../../outside.txt", nested=True)
    refused(archive, tar_of(member("../n01.tar", tar_of())), draft, "refused", "../n01.tar", nested=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "../.."},
        {"type": tarfile.SYMTYPE, "linkname": "harmless.txt"},
        {"type": tarfile.LNKTYPE, "linkname": "../../precious.txt"},
        {"type": tarfile.LNKTYPE, "linkname": "good.txt"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"type": tarfile.BLKTYPE, "devmajor": 8},
        {"type": tarfile.FIFOTYPE},
        {"type": b"Z"},
    ],
)
def test_links_and_devices_are_refused_before_anything_goes_through_them(archive, draft, fields):
    data = tar_of(member("good.txt", b"good"), member("x", **fields), member("x/precious.txt", b"bad"))
    refused(archive, data, draft, "refused", "'x'", written=["good.txt"])


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(archive, draft, kind):
    data = zip_of((zip_member("x", kind | 0o777), b"../.."), ("x/precious.txt", b"bad"))
    refused(archive, data, draft, "refused", "'x'")


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50)},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**50)},
    ],
)
def test_sparse_files_are_refused(archive, draft, headers):
    data = tar_of(member("holes.bin", b"1\n0\n1\n".ljust(513, b"\0"), pax_headers=headers))
    refused(archive, data, draft, "refused", "holes.bin", limits=Limits(bytes=1_000_000))


def test_a_map_of_holes_that_does_not_end_is_refused(archive, draft):
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}
    holes = b"99999999\n" + b"0\n" * 1_000_000
    refused(
        archive,
        gzip.compress(tar_of(member("x", holes, pax_headers=headers))),
        draft,
        "a header does not end",
    )


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_gigabytes_is_refused_unread(archive, draft, kind):
    block = member("x", type=kind, size=2**40)[0].tobuf(tarfile.GNU_FORMAT)
    refused(archive, gzip.compress(block + b"1" * 3_000_000), draft, "a header does not end")


def test_headers_of_headers_without_end_are_refused(archive, draft):
    block = member("x", type=tarfile.GNUTYPE_LONGNAME)[0].tobuf(tarfile.GNU_FORMAT)
    refused(archive, gzip.compress(block * 100_000), draft, UNREADABLE)


@pytest.mark.parametrize("size", [-512, -1024, -1])
def test_a_negative_size_is_refused(archive, draft, size):
    data = tar_of(member("x", b"data", size=size), member("y", b"data"), tar_format=tarfile.GNU_FORMAT)
    refused(archive, data, draft, UNREADABLE)
    data = tar_of(member("x", b"data", pax_headers={"size": str(size)}), member("y", b"data"))
    refused(archive, data, draft, UNREADABLE)


@pytest.mark.parametrize("where", ["/tmp/x", "../x", "a/../../x", "C:/x", "a\\b", "."])
def test_a_target_path_outside_the_draft_is_refused(archive, draft, where):
    data = tar_of(member("a.jpg", b"data"))
    refused(archive, data, draft, "a.jpg", where, target_path=lambda name: PurePosixPath(where))


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_that_are_in_the_draft_are_not_followed(archive, draft):
    (draft / "out").symlink_to("../..")
    (draft / "gone.txt").symlink_to("../../new.txt")
    (draft / "precious.txt").symlink_to("../../precious.txt")
    links = ["out", "gone.txt", "precious.txt"]
    for name in ("out/precious.txt", "out/new.txt", "gone.txt", "precious.txt"):
        refused(archive, tar_of(member(name, b"bad")), draft, "link", written=links)


def test_a_file_cannot_be_a_folder_too(archive, draft):
    refused(archive, tar_of(member("a", b""), member("a/b", b"")), draft, "a file or a link", written=["a"])
    (draft / "a").unlink()
    refused(archive, tar_of(member("a/b", b""), member("a", b"")), draft, "a folder", written=["a/b"])


def test_as_many_files_and_bytes_as_the_limits_are_unpacked(archive, draft):
    archive.write_bytes(tar_of(member("a/1", b"12345"), member("a/2", b"12345")))
    assert unpack(archive, draft, same_path, Limits(files=3, bytes=10)) == 2


def test_more_files_or_folders_than_the_limit_are_not_written(archive, draft):
    options = ("--max-files", "--max-bytes", "3 files")
    names = [str(number) for number in range(1000)]
    refused(archive, tar_of(*map(member, names)), draft, *options, written=names[:3], limits=Limits(files=3))
    deep = tar_of(member("d/" * 50 + "file"))
    refused(archive, deep, draft, *options, written=names[:3], limits=Limits(files=3))
    assert len(tree(draft)) == 6


@pytest.mark.parametrize(
    "pack", [lambda data: gzip.compress(tar_of(member("x", data))), lambda data: zip_of(("x", data))]
)
def test_a_bomb_stops_at_the_limit(archive, draft, pack):
    bomb = pack(bytes(20_000_000))
    assert len(bomb) < 100_000
    limits = Limits(bytes=1_000_000)
    refused(archive, bomb, draft, "--max-bytes", "1000000 bytes", written=["x"], limits=limits)
    assert (draft / "x").stat().st_size <= 1_000_000


def test_the_limit_is_one_for_all_members(archive, draft):
    data = tar_of(*(member(name, bytes(400)) for name in "abc"))
    refused(archive, data, draft, "--max-bytes", written=["a", "b", "c"], limits=Limits(bytes=1000))
    assert (draft / "c").stat().st_size == 0


def test_the_limits_are_shared_by_nested_tars(archive, draft):
    inner = tar_of(member("1", bytes(400)), member("2", bytes(400)))
    data = tar_of(member("a.tar", inner), member("b.tar", inner))
    written = ["a/1", "a/2", "b/1"]
    refused(archive, data, draft, "--max-bytes", written=written, limits=Limits(bytes=1000), nested=True)
    for name in written:
        (draft / name).unlink()
    refused(archive, data, draft, "--max-files", written=["a/1", "a/2"], limits=Limits(files=4), nested=True)


def test_members_without_a_target_path_do_not_count(archive, draft):
    archive.write_bytes(tar_of(*(member(name, bytes(400)) for name in "abc")))
    assert unpack(archive, draft, lambda n: n if n.name == "b" else None, Limits(1, 400)) == 1


def test_a_tar_header_with_too_large_a_size_makes_it_incomplete(archive, draft):
    data = tar_of(member("x", b"data", size=2**60), member("y", b"data"))
    refused(archive, data, draft, UNREADABLE, written=["x"])


@pytest.mark.parametrize("size", [3, 50])
def test_a_zip_with_a_wrong_size_is_unreadable(archive, draft, size):
    data = bytearray(zip_of(("x", b"0123456789")))
    for start, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        position = data.index(start) + offset
        assert data[position] == 10
        data[position] = size
    refused(archive, bytes(data), draft, UNREADABLE, written=["x"])


@pytest.mark.parametrize("wanted", [True, False])
def test_an_archive_with_a_wrong_checksum_is_unreadable(archive, draft, wanted):
    noise = random.Random(0).randbytes(1000)
    target_path = same_path if wanted else lambda name: None
    written = ["x"] if wanted else []
    zipped = zip_of(("x", noise), method=zipfile.ZIP_STORED)
    changed = zipped.replace(noise, noise[:-1] + bytes([noise[-1] ^ 1]))
    refused(archive, changed, draft, UNREADABLE, written=written, target_path=target_path)
    (draft / "x").unlink(missing_ok=True)
    zipped = bytearray(gzip.compress(tar_of(member("x", noise)) + bytes(500_000)))
    zipped[-8] ^= 1
    refused(archive, bytes(zipped), draft, UNREADABLE, written=written, target_path=target_path)


def test_an_encrypted_member_is_refused(archive, draft):
    data = bytearray(zip_of(("secret.txt", b"data")))
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(start) + offset] |= 1
    refused(archive, bytes(data), draft, "secret.txt", "encrypted")


def test_an_unknown_compression_is_reported(archive, draft):
    data = bytearray(zip_of(("x", b"data")))
    for start, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(start) + offset] = 99
    refused(archive, bytes(data), draft, UNREADABLE)


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_tar_cut_off_anywhere_is_incomplete(archive, draft, suffix):
    noise = random.Random(0).randbytes(3000)
    tar = tar_of(member("a", noise), member("b", noise[::-1]), member("c", b"c"))
    if suffix:
        full = COMPRESSORS[suffix](tar)
        sizes = [*range(600, len(full), 700), len(full) - 1]
    else:
        full = tar
        sizes = [*range(600, 8192, 700), 3584, 7168, 7680, 8192]
    for size in sizes:
        archive.write_bytes(full[:size])
        with pytest.raises(UserError, match=f"{archive.name} is {UNREADABLE}"):
            list(members(archive))
        with pytest.raises(UserError, match=f"{archive.name} is {UNREADABLE}"):
            unpack(archive, draft, lambda name: None)


def test_a_zip_cut_off_anywhere_is_incomplete(archive, draft):
    full = zip_of(*FILES.items())
    for size in (10, 100, len(full) // 2, len(full) - 1):
        refused(archive, full[:size], draft, UNREADABLE)
        with pytest.raises(UserError, match=UNREADABLE):
            list(members(archive))


def test_a_broken_header_between_members_is_not_taken_for_the_end(archive, draft):
    data = bytearray(tar_of(member("a", b"a"), member("b", b"b")))
    data[1024 + 150] ^= 1
    refused(archive, bytes(data), draft, UNREADABLE, written=["a"])


def test_a_nested_tar_of_another_format_or_incomplete_is_reported(archive, draft):
    data = tar_of(member("n01.tar", b"<html>not found</html>"))
    refused(archive, data, draft, UNREADABLE, "n01.tar", nested=True)
    data = tar_of(member("n01.tar", tar_of(member("a", bytes(2000)))[:1500]))
    refused(archive, data, draft, UNREADABLE, written=["n01/a"], nested=True)


@pytest.mark.parametrize(
    "data", [b"", b"<html>404 not found</html>" * 100, b"\x89PNG\r\n", gzip.compress(b"text", mtime=0)]
)
def test_a_file_of_another_format_is_reported(archive, draft, data):
    refused(archive, data, draft, "is not a .tar")
    with pytest.raises(UserError, match=r"is not a \.tar"):
        next(members(archive))


def test_a_missing_archive_is_reported(archive, draft):
    with pytest.raises(UserError, match="cannot read "):
        unpack(archive, draft, same_path)
    with pytest.raises(UserError, match="cannot read "):
        next(members(archive))


def test_one_file_twice_is_written_once(archive, draft):
    data = os.urandom(100_000)
    archive.write_bytes(tar_of(member("a/x", data), member("b/x", data), member("a/x", data)))
    assert unpack(archive, draft, lambda name: PurePosixPath(name.name)) == 1
    assert tree(draft) == {"x": data}


@pytest.mark.parametrize("other", [b"dat", b"datA", b"data and more", b""])
def test_two_files_with_one_target_path_are_refused_with_both_names(archive, draft, other):
    data = tar_of(member("a/x", b"data"), member("between", b""), member("b/x", other))
    texts, written = ("a/x", "b/x", "differs"), ["x", "between"]
    refused(archive, data, draft, *texts, written=written, target_path=lambda name: PurePosixPath(name.name))
    assert (draft / "x").read_bytes() == b"data"
    for name in written:
        (draft / name).unlink()
    refused(archive, tar_of(member("x", b"data"), member("x", other)), draft, "x differs", written=["x"])


def test_a_file_that_was_there_before_is_not_replaced(archive, draft):
    (draft / "x").write_bytes(b"before")
    refused(archive, tar_of(member("x", b"data")), draft, "differs from the existing file", written=["x"])
    assert (draft / "x").read_bytes() == b"before"


def test_random_changes_of_an_archive_raise_user_errors_only(archive, draft):
    rng = random.Random(0)
    files = [member("a/b.jpg", b"data", pax_headers={"comment": "x"}), member("é" * 80, b"more")]
    archives = [tar_of(*files), tar_of(*files, tar_format=tarfile.GNU_FORMAT), zip_of(*FILES.items())]
    archives.append(zlib.compress(archives[0], wbits=31))
    failures = 0
    for full in archives:
        for _ in range(150):
            data = bytearray(full)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(min(len(data), 5000))] = rng.randrange(256)
            archive.write_bytes(data)
            try:
                unpack(archive, draft, lambda name: None, nested=True)
            except UserError:
                failures += 1
    assert failures > 200
