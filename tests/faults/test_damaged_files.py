"""Spoiled files: images, shards, manifests, tensors, adapters, tables, a journal of replies."""

from __future__ import annotations

import io
import json
import logging
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from safetydpo_kedro.artifacts import Manifest, Provenance, recorded_fingerprint
from safetydpo_kedro.datasets import ShardedParquetDataset, ShardedSafetensorsDataset
from safetydpo_kedro.datasets.tensors import load_tensors
from safetydpo_kedro.diffusion.kohya import save_kohya
from safetydpo_kedro.diffusion.lora import random_adapter
from safetydpo_kedro.diffusion.lora_files import load_adapter, save_adapter
from safetydpo_kedro.images import decode_images, is_image
from safetydpo_kedro.prompts.importers import coco, copro, coprov2
from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.prompts.importers.pairs import import_table
from safetydpo_kedro.prompts.importers.schema import Intake
from safetydpo_kedro.prompts.journal import ReplyJournal
from safetydpo_kedro.settings import CATEGORIES

from .damage import damaged, little_memory

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
SHAPES = {"mid_block.attentions.0.proj_in": (8, 6, 1, 1), "mid_block.attentions.0.proj_out": (6, 8)}


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """Images of many formats and modes."""
    image = Image.fromarray(PIXELS)
    found = {f: encoded(image, f) for f in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")}
    found |= {mode: encoded(image.convert(mode), "PNG") for mode in ("L", "P", "RGBA", "LA", "1")}
    found["CMYK"] = encoded(image.convert("CMYK"), "JPEG")
    found["progressive"] = encoded(image, "JPEG", progressive=True)
    found["animated"] = encoded(image, "PNG", save_all=True, append_images=[image.rotate(90)])
    found["16 bits"] = encoded(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG")
    return found


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be so large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


@pytest.mark.parametrize("kind", pictures())
def test_every_kind_of_image_is_read_as_it_looks(kind):
    (image,) = decode_images([{"bytes": pictures()[kind], "path": "a"}])
    assert image.shape == (24, 24, 3)
    assert abs(image.mean() - PIXELS.mean()) < 8  # none is black, white or clipped


def test_an_image_stands_as_its_camera_was_held():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, :8] = 255
    (turned,) = decode_images(
        [{"bytes": encoded(Image.fromarray(image), "PNG", exif=exif), "path": "a"}]
    )
    assert turned.shape == (16, 8, 3) and turned[:8].min() == 255


@pytest.mark.parametrize("size", [(100_000, 100_000), (9_000, 9_000), (2**31 - 1, 1)])
def test_a_bomb_is_refused_before_it_is_unpacked(tally, size):
    with little_memory():
        assert tally("images").tries(lambda: read(claiming(*size)), "a.png") is None
    assert not is_image(claiming(*size))


def read(content) -> np.ndarray:
    return decode_images([{"bytes": content, "path": "a.png"}])


def test_damaged_images(tally, chance, rounds):
    books, contents = tally("images"), [*pictures().values()]
    for content in (None, "text", 5, []):
        assert books.tries(lambda content=content: read(content), "a.png") is None
    with little_memory():
        for _ in range(rounds(300)):
            spoiled = damaged(chance.choice(contents), chance)
            books.tries(lambda spoiled=spoiled: read(spoiled), "a.png")
            books.tries(lambda spoiled=spoiled: is_image(spoiled))


Spoil = Callable[[Path, random.Random], None]


def test_damaged_shards_of_tables_and_their_books(tally, chance, rounds, tmp_path):
    image = {"bytes": pictures()["PNG"], "path": "x.png"}
    table = pd.DataFrame({"prompt": ["a", "b"], "image": [image, image]})
    folder = tmp_path / "shards"
    dataset = ShardedParquetDataset(path=str(folder), image_columns=["image"])

    def use() -> None:
        decode_images(dataset.load()["image"])

    spoil_shards(tally("Parquet shards and manifests"), dataset, table, use, chance, rounds(60))


def test_damaged_shards_of_tensors_and_their_books(tally, chance, rounds, tmp_path):
    shard = {"x": torch.ones(2, 3)}
    dataset = ShardedSafetensorsDataset(path=str(tmp_path / "shards"))
    books = tally("safetensors shards and manifests")
    spoil_shards(books, dataset, shard, dataset.load, chance, rounds(60))


def spoil_shards(books, dataset, shard, use, chance, times) -> None:
    """Spoil one file of a folder of shards; whatever comes of it, a second save repairs it."""
    dataset.expect(Provenance("f" * 64))
    plan = {"a": shard, "b": shard}
    dataset.save(plan)
    folder = dataset.manifest_path.parent
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(times):
        name = chance.choice([*whole])
        (folder / name).write_bytes(damaged(whole[name], chance))
        books.tries(use, folder.name)
        if name.startswith("_"):
            books.tries(lambda: dataset.save(plan), folder.name)
        else:
            dataset.save(plan)
            assert dataset.exists()
            assert {p.name for p in folder.iterdir()} == set(whole)
            use()
        for other, content in whole.items():
            (folder / other).write_bytes(content)


@pytest.mark.parametrize("name", ["../precious.txt", "/precious.txt", "a/../../precious.txt", "."])
@pytest.mark.parametrize("book", ["_manifest.json", "_in_progress.json", "_kept.json"])
def test_books_that_name_files_elsewhere_reach_none_of_them(tally, tmp_path, book, name):
    precious = tmp_path / "precious.txt"
    precious.write_text("keep me")
    dataset = ShardedSafetensorsDataset(path=str(tmp_path / "shards"))
    plan = {"a": {"x": torch.ones(2)}}
    dataset.save(plan)
    name = str(precious) if name.startswith("/") else name
    record = {"sha256": "0" * 64, "bytes": 1}
    if book == "_manifest.json":
        content = json.loads(dataset.manifest_path.read_text())
        content["files"][name] = record
    else:
        content = {"shards": {name: "f"}, name: "f"}
    (dataset.manifest_path.parent / book).write_text(json.dumps(content))
    books = tally("paths that climb out of their folder")
    books.tries(dataset.load, "shards")
    books.tries(lambda: dataset.save(plan), "shards")
    assert precious.read_text() == "keep me"


def test_damaged_manifests(tally, chance, rounds, tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("a\n1\n")
    manifest = tmp_path / "table.csv.manifest.json"
    Manifest.of(Provenance("f" * 64, "node"), [file], tmp_path).write(manifest)
    whole, books = manifest.read_bytes(), tally("manifests")
    odd = [b"[" * 100_000, b'{"files": ' * 50_000, b"NaN", b"1" * 10_000]
    for content in (*odd, *(damaged(whole, chance) for _ in range(rounds(300)))):
        manifest.write_bytes(content)
        found = books.tries(lambda: recorded_fingerprint(manifest))
        assert found is None or isinstance(found, str)
    assert file.read_text() == "a\n1\n"


def header(size: int, **entries) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", size or len(text)) + text


ABSURD = [
    header(2**63 - 1, x={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
    header(0, x={"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}),
    header(0, x={"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}),
    header(0, x={"dtype": "F99", "shape": [], "data_offsets": [0, 0]}),
    struct.pack("<Q", 200_000) + b"[" * 200_000,
]


@pytest.mark.parametrize("content", ABSURD)
@pytest.mark.parametrize("load", [load_tensors, load_adapter])
def test_headers_that_claim_absurd_sizes(tally, tmp_path, content, load):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with little_memory():
        assert tally("safetensors").tries(lambda: load(file), "x.safetensors") is None


def test_damaged_adapters(tally, chance, rounds, tmp_path):
    adapter = random_adapter(SHAPES, 2, torch.Generator().manual_seed(0))
    files = [tmp_path / "ours.safetensors", tmp_path / "kohya.safetensors"]
    save_adapter(adapter, files[0])
    save_kohya(adapter, files[1])
    wholes, books = [file.read_bytes() for file in files], tally("adapters")
    for _ in range(rounds(60)):
        for file, whole in zip(files, wholes, strict=True):
            file.write_bytes(damaged(whole, chance))
            books.tries(lambda file=file: load_adapter(file), file.name)
            books.tries(lambda file=file: load_tensors(file), file.name)
            file.write_bytes(whole)
    states = [load_file(file) for file in files]
    for _ in range(rounds(60)):
        file = tmp_path / "odd.safetensors"
        save_file(changed(dict(chance.choice(states)), chance), file, odd_metadata(chance))
        loaded = books.tries(lambda file=file: load_adapter(file), file.name)
        for layer in loaded.layers.values() if loaded else ():
            assert layer.delta().isfinite().all() and layer.rank


def changed(state: dict[str, torch.Tensor], chance: random.Random) -> dict[str, torch.Tensor]:
    """A LoRA with one thing wrong, or nothing."""
    key = chance.choice([*state])
    tensor = state.pop(key)
    kind = chance.randrange(7)
    if kind == 0:
        return {} if chance.random() < 0.2 else state  # a factor is missing, or all
    if kind == 1:
        names = (f"{key}.x", key[:-1], "", "a.b", f"unet.{key}", f"text_encoder.{key}")
        return {**state, chance.choice((*names, key.replace("weight", "alpha"))): tensor}
    if kind == 2:
        value = chance.choice((float("nan"), float("inf"), 1e38, 0.0, 1e-45))
        return {**state, key: torch.full_like(tensor.float(), value)}
    if kind == 3:
        dtypes = (torch.int8, torch.bool, torch.float16, torch.float8_e4m3fn, torch.float64)
        return {**state, key: tensor.to(chance.choice(dtypes))}
    if kind == 4:
        shapes = ((0, 3), (3, 0), (1, 1, 1, 1, 1), (2, 2), (), (7,))
        return {**state, key: tensor.new_ones(chance.choice(shapes))}
    return {**state, key: tensor[None].clone() if kind == 5 else tensor}


def odd_metadata(chance: random.Random) -> dict[str, str] | None:
    """Header entries with one thing wrong, or nothing."""
    values = (None, 0, -1, float("inf"), "x", [], {}, True, 2, 4.0, {"(a+)+$": 2}, {"(": 1})
    values += ({"(a*)*b": 2}, {".*" * 50: 2}, {"mid": None}, {"mid": 2})
    entries = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora")
    given = {"unet.r": 2, f"unet.{chance.choice(entries)}": chance.choice(values)}
    text = chance.choice((json.dumps(given), json.dumps(given), "[" * 100_000, "[]", "{"))
    return chance.choice((None, {"lora_adapter_metadata": text}, {"safetydpo_kedro": text}))


def tables() -> dict[str, tuple[bytes, Callable[[Path, Intake], list]]]:
    """Files of prompts, and how they are imported."""
    known = Categories(CATEGORIES)
    names = [f"{side}_idx_{i}.jpg" for i in range(6) for side in "us"]
    rows = "".join(f'"a thing, {name}",{name},Hate\n' for name in names)
    pair = {"unsafe_prompt": "a", "safe_prompt": "b", "concept": "c", "category": "hate"}
    images = [{"id": i} for i in range(3)]
    captions = [{"id": i, "image_id": i, "caption": "a bus"} for i in range(3)]
    return {
        "pairs.csv": (
            f"prompt,image,category\n{rows}".encode(),
            lambda path, intake: coprov2.import_pairs(path, known, 0, intake),
        ),
        "copro.json": (
            json.dumps({"ID": [pair] * 3}).encode(),
            lambda path, intake: copro.import_pairs(path, ["ID"], known, 0, intake),
        ),
        "coco.json": (
            json.dumps({"images": images, "annotations": captions}).encode(),
            lambda path, intake: coco.import_annotations(path, "c", 0, intake),
        ),
    }


@pytest.mark.parametrize("name", tables())
def test_damaged_files_of_prompts(tally, chance, rounds, tmp_path, name):
    whole, load = tables()[name]
    file, books = tmp_path / name, tally("published prompt files")
    for _ in range(rounds(150)):
        file.write_bytes(damaged(whole, chance))
        intake = Intake("x")
        rows = books.tries(lambda intake=intake: load(file, intake), file.name)
        books.aside(len(intake.rejected), of=len(intake.rejected))
        if name == "pairs.csv" and rows is not None:
            assert len(import_table(rows)) * 2 + len(intake.rejected) <= intake.rows


def test_a_file_of_broken_lines_takes_no_longer_for_their_number(tally, tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("prompt,image,category\n" + 'a "b" c"\n"x"y\n' * 30_000)
    intake = Intake("x")
    load = tables()["pairs.csv"][1]
    assert tally("published prompt files").tries(lambda: load(file, intake)) == []
    assert len(intake.rejected) == intake.rows == 60_000


def test_a_damaged_journal_loses_the_damaged_lines_only(tally, chance, rounds, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    lines = [json.dumps({"key": f"{i}", "text": "a", "finish_reason": "stop"}) for i in range(20)]
    whole, books = ("\n".join(lines) + "\n").encode(), tally("journals of replies")
    journal = ReplyJournal(tmp_path / "journal.jsonl")
    odd = [b"[" * 100_000, b'{"key": [], "text": "a", "finish_reason": "a"}']
    odd += [b'{"key": "x", "text": 5, "finish_reason": null}', b"5", b"\xff\n"]
    for line in odd:
        journal.path.write_bytes(whole + line + b"\n" + whole)
        assert len(books.tries(journal._read)) == 20
    for _ in range(rounds(100)):
        journal.path.write_bytes(damaged(whole, chance))
        replies = books.tries(journal._read)
        assert all(isinstance(text, str) for reply in replies.values() for text in reply)
