"""The pickle of Q16: the array in it, and nothing else that a pickle can do."""

from __future__ import annotations

import builtins
import copyreg
import hashlib
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetydpo_kedro.metrics.q16_conversion import LARGEST_BYTES, read_q16_pickle

# Where a user puts the published file; it is not part of the project.
PUBLISHED = Path(__file__).parents[2] / "data" / "01_raw" / "real" / "q16_prompts.p"
PUBLISHED_SHA256 = "9b6c411824c2f64e0f847aa3c9f2b15b8e3a6c75e0efd82f2f672670c97ccad5"
ARRAY = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float16)


def write(tmp_path, content) -> Path:
    """A file with these bytes, or with the pickle of this object."""
    path = tmp_path / "prompts.p"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=3))
    return path


def refuse(tmp_path, content, words: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)prompts\.p'.*{words}.*ml-research/Q16"):
        read_q16_pickle(write(tmp_path, content))


# --- what is read


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"no published prompts at {PUBLISHED}")
def test_the_published_prompts():
    prompts, sha256 = read_q16_pickle(PUBLISHED)
    assert sha256 == PUBLISHED_SHA256
    assert prompts.shape == (2, 768) and prompts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(prompts, axis=1), [22.175, 21.346], atol=1e-3)
    np.testing.assert_array_equal(prompts, np.load(PUBLISHED, allow_pickle=True))


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_floats_are_read_as_numpy_reads_them(tmp_path, protocol, dtype, order):
    content = pickle.dumps(np.array(ARRAY, dtype, order=order), protocol=protocol)
    prompts, sha256 = read_q16_pickle(write(tmp_path, content))
    assert prompts.dtype == np.float32 and prompts.flags.c_contiguous
    np.testing.assert_array_equal(prompts, pickle.loads(content))
    assert sha256 == hashlib.sha256(content).hexdigest()


def test_the_module_name_of_numpy_1_is_read_too(tmp_path):
    content = pickle.dumps(ARRAY, protocol=3).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in content
    prompts, _ = read_q16_pickle(write(tmp_path, content))
    np.testing.assert_array_equal(prompts, ARRAY)


# --- what is refused as wrong


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ARRAY[:1], r"shape \(1, 8\)"),
        (np.concatenate([ARRAY, ARRAY]), r"shape \(4, 8\)"),
        (ARRAY[0], r"shape \(8,\)"),
        (ARRAY[:, :0], r"shape \(2, 0\)"),
        (ARRAY[None], r"shape \(1, 2, 8\)"),
        (ARRAY.astype(np.int64), "dtype is 'i8'"),
        (ARRAY.astype(complex), "dtype is 'c16'"),
        (np.where(np.eye(2, 8), np.nan, ARRAY), "2 of its numbers are not finite"),
        (np.full((2, 8), 1e300), "16 of its numbers are not finite"),
        (ARRAY * [[1], [0]], "no direction"),
        (np.array([[1, "a"]], dtype=object), "is not one it needs"),
        ([ARRAY], "opcode EMPTY_LIST"),
        ({"prompts": ARRAY}, "opcode EMPTY_DICT"),
        ((ARRAY, ARRAY), "holds no array"),
        (None, "holds no array"),
        (np.float32(1), "multiarray scalar"),
        (b"", "exhausted"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not the pickle"),
        (b"PK\x03\x04 as torch.save writes", "not the pickle"),
        (pickle.dumps(ARRAY, protocol=3) + b"more", "goes on for 4 bytes"),
        (pickle.dumps(ARRAY, protocol=4), "only 2 and 3 are read"),
        (bytes(LARGEST_BYTES + 1), "more than"),
    ],
)
def test_other_contents_are_refused_with_the_reason(tmp_path, content, words):
    refuse(tmp_path, content, words)


def test_a_file_that_is_cut_short_is_refused_wherever_it_ends(tmp_path):
    content = pickle.dumps(ARRAY, protocol=3)
    for length in range(len(content)):
        refuse(tmp_path, content[:length], "not the pickle")


def test_a_missing_file_is_named_with_the_place_to_get_it(tmp_path):
    with pytest.raises(ValueError, match=r"no Q16 prompts at .*nowhere.p'; put .*ml-research/Q16"):
        read_q16_pickle(tmp_path / "nowhere.p")


# --- what is refused as hostile


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (builtins.eval, "eval"), (subprocess.check_call, "check_call")],
)
@pytest.mark.parametrize("inside", ["alone", "tuple", "object array"])
def test_a_call_is_refused_by_name_and_never_made(tmp_path, protocol, function, name, inside):
    marker = tmp_path / "ran"
    code = {"eval": f"open({str(marker)!r}, 'w')", "system": f"touch {marker}"}
    call = Call(function, code.get(name, ["touch", str(marker)]))
    wrapped = {"alone": call, "tuple": (ARRAY, call), "object array": np.array([call, 1])}
    content = pickle.dumps(wrapped[inside], protocol=protocol)
    named = protocol < 4 or inside == "alone"  # later protocols are refused at their first name
    refuse(tmp_path, content, name if named else "only 2 and 3 are read")
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists(), "the call does nothing, so this test would show nothing"


def test_functions_of_numpy_itself_are_refused(tmp_path):
    for function in (np.load, np.frombuffer, np.lib.format.read_array, np.dtype("V8").type):
        refuse(tmp_path, Call(function, "x"), "which no array needs")


def test_extension_codes_are_refused_although_they_pass_find_class_by(tmp_path):
    copyreg.add_extension("os", "getcwd", 0xF0)
    try:
        content = b"\x80\x02\x82\xf0)R."
        assert pickle.loads(content) == os.getcwd()  # and now the code is cached
        refuse(tmp_path, content, "opcode EXT1")
    finally:
        copyreg.remove_extension("os", "getcwd", 0xF0)


@pytest.mark.parametrize(
    ("content", "opcode"),
    [
        (b"\x80\x02P1\n.", "PERSID"),
        (b"\x80\x02NQ.", "BINPERSID"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "LONG_BINPUT"),  # a memo of 2^31 entries
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "FRAME"),
        (b"\x80\x03cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.", "EMPTY_DICT"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "NEWOBJ"),
    ],
)
def test_opcodes_that_an_array_does_not_need_are_refused(tmp_path, content, opcode):
    refuse(tmp_path, content, f"opcode {opcode}")


LAUGHS = b"Nq\x00" + b"h\x00\x86q\x00" * 100  # 2^100 times None, in few bytes


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\ndtype\n" + LAUGHS + b"\x85R.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00a" + LAUGHS + b"\x86R.",
        b"c_codecs\nencode\n" + LAUGHS + b"X\x06\x00\x00\x00latin1\x86R.",
        b"cnumpy\ndtype\nX\x02\x00\x00\x00f2\x85R" + LAUGHS + b"b.",
        b"cnumpy.core.multiarray\n_reconstruct\n)R" + LAUGHS + b"b.",
        LAUGHS + b".",
    ],
)
def test_tuples_that_hold_each_other_are_not_walked_through(tmp_path, content):
    refuse(tmp_path, b"\x80\x02" + content, "not the pickle")


def test_a_shape_without_the_bytes_for_it_reserves_nothing(tmp_path):
    content = pickle.dumps(ARRAY, protocol=3)
    wide = content.replace(b"K\x02K\x08\x86", b"K\x02J\xff\xff\xff\x7f\x86")
    assert wide != content
    refuse(tmp_path, wide, "32 bytes are no array")


# --- whatever the bytes

EVENTS: list[str] = []
WATCHED = {"pickle.find_class", "os.system", "subprocess.Popen", "exec", "compile", "import"}
_watching = False


def _watch(event: str, arguments: tuple) -> None:
    if _watching and event in WATCHED:
        EVENTS.append(event)


sys.addaudithook(_watch)


@contextmanager
def watched():
    """What the interpreter reports of calls, imports and names looked up by the block."""
    global _watching
    EVENTS.clear()
    _watching = True
    try:
        yield EVENTS
    finally:
        _watching = False


VALID = pickle.dumps(ARRAY, protocol=3)
FRAGMENTS = [
    *(b"cos\ngetcwd\n", b"cbuiltins\neval\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n"),
    *(b"c_codecs\nencode\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"\x82\x01", b"\x93"),
    *(b"X\x02\x00\x00\x00f2", b"X\x01\x00\x00\x00<", b"X\x06\x00\x00\x00latin1", b"C\x04\0<\0<"),
    *(b"N", b"K\x02", b"K\x01", b"\x88", b"\x89", b"(", b")", b"t", b"\x85", b"\x86", b"\x87"),
    *(b"q\x00", b"h\x00", b"R", b"b", b"}", b"s", b"]", b"a", b"0", b"2", b"\x81", b"Q", b"."),
]


@st.composite
def changed(draw):
    """A valid pickle with some bytes replaced."""
    content = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


programs = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(
    lambda parts: b"\x80\x03" + b"".join(parts) + b"."
)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=100) | changed() | programs)
def test_any_bytes_give_prompts_or_a_value_error_and_run_nothing(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.p"
    path.write_bytes(content)
    with watched() as events:
        try:
            prompts, _ = read_q16_pickle(path)
        except ValueError:
            prompts = None
    assert events == []
    if prompts is not None:
        assert prompts.dtype == np.float32 and prompts.shape[0] == 2 and prompts.ndim == 2
        assert np.isfinite(prompts).all()


def test_the_watch_sees_what_the_usual_way_of_reading_does():
    with watched() as events:
        pickle.loads(VALID)
    assert "pickle.find_class" in events
