"""Sharded tables, with images in the form that Hugging Face ``datasets`` opens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import DatasetError

from safetydpo_kedro.datasets.previews import (
    ImagePreview,
    TablePreview,
    preview_images,
    preview_table,
)
from safetydpo_kedro.datasets.sharded import ShardedDataset
from safetydpo_kedro.storage import Location, local_copy

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from safetydpo_kedro.reporting.grids import Blur


class ShardedParquetDataset(ShardedDataset["pd.DataFrame"]):
    """A folder of Parquet shards, loaded as one ``DataFrame`` with a new index.

    An image column holds ``{"bytes": <encoded image>, "path": <name or None>}`` in each row. It
    is marked in the file so that ``datasets.load_dataset("parquet", data_files=...)`` decodes it
    as the ``Image`` feature, and the hub shows it. A loaded table holds the images as
    :class:`safetydpo_kedro.images.StoredImage`, which reads them when they are needed.

    Example:
        .. code-block:: yaml

            image_pairs:
              type: safetydpo_kedro.datasets.ShardedParquetDataset
              path: data/04_feature/image_pairs
              image_columns: [unsafe_image, safe_image]

    Args:
        path: the folder.
        image_columns: columns that hold images.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    suffix = ".parquet"

    def __init__(
        self,
        *,
        path: str,
        image_columns: Sequence[str] = (),
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(path=path, credentials=credentials, fs_args=fs_args, metadata=metadata)
        self._image_columns = tuple(image_columns)

    def _write(self, shard: pd.DataFrame, path: Path) -> None:
        import pyarrow.parquet as pq

        pq.write_table(to_arrow(shard, self._image_columns), path)

    def _read(self, paths: list[Location]) -> pd.DataFrame:
        import pandas as pd

        if not paths:
            return pd.DataFrame()  # a keyed plan may be empty
        return pd.concat([self._read_shard(path) for path in paths], ignore_index=True)

    def _read_shard(self, path: Location) -> pd.DataFrame:
        import pyarrow as pa

        file = local_copy(path)
        try:
            return self._table(file)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise DatasetError(
                f"shard {path} cannot be read ({error}): remove it and run the node that makes "
                f"it, which makes this one again"
            ) from error

    def _table(self, file: Path) -> pd.DataFrame:
        import pandas as pd
        import pyarrow.parquet as pq

        from safetydpo_kedro.images import StoredImage

        names = pq.read_schema(file).names
        table = pd.read_parquet(file, columns=[n for n in names if n not in self._image_columns])
        rows = range(pq.read_metadata(file).num_rows)
        images = {n: [StoredImage(file, n, i) for i in rows] for n in self._image_columns}
        return table.assign(**{n: pd.Series(c, table.index) for n, c in images.items()})[names]

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz, without images and vectors.

        Args:
            nrows: how many.
        """
        import pandas as pd

        head = self._read(self.shard_paths()[:1]).head(nrows)
        plain = [n for n in head if head[n].map(pd.api.types.is_scalar).all()]
        return preview_table(head[plain])

    def _describe(self) -> dict[str, Any]:
        return {"path": self._path, "image_columns": self._image_columns}


class ShardedImagesDataset(ShardedParquetDataset):
    """Sharded tables of which Kedro-Viz shows the images instead of the first rows.

    Example:
        .. code-block:: yaml

            "{variant}_images":
              type: safetydpo_kedro.datasets.ShardedImagesDataset
              path: data/07_model_output/images/{variant}
              image_columns: [image]
              metadata: {kedro-viz: {preview_args: {count: 12}}}
    """

    def preview(self, count: int = 12, blur: Blur = "all") -> ImagePreview:
        """A contact sheet of rows that are spread evenly over the first shard.

        Args:
            count: rows, at most.
            blur: ``all``, or ``none`` for images that are known to be harmless.
        """
        from safetydpo_kedro.reporting.examples import evenly_spread

        shard = self._read(self.shard_paths()[:1])
        if shard.empty:
            return ImagePreview("")  # Kedro-Viz shows nothing
        some = shard.iloc[evenly_spread(min(count, len(shard)), len(shard))]
        return preview_images(some, self._image_columns, blur)


def to_arrow(table: pd.DataFrame, image_columns: Sequence[str]) -> pa.Table:
    """Arrow form of a table, with its image columns marked as Hugging Face ``Image`` features.

    Raises:
        ValueError: an image column is not in the table.
    """
    import pyarrow as pa

    missing = [name for name in image_columns if name not in table.columns]
    if missing:
        raise ValueError(
            f"image_columns {missing} are not in the table, its columns are {list(table.columns)}"
        )
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    inferred = pa.Table.from_pandas(table.drop(columns=list(image_columns)), preserve_index=False)
    fields = []
    for name in table.columns:
        kind = image if name in image_columns else inferred.schema.field(name).type
        # One shard's column may be all None, another's may hold strings: give both one type.
        is_text = pa.types.is_null(kind) or pa.types.is_large_string(kind)
        fields.append(pa.field(name, pa.string() if is_text else kind))
    features = {name: {"_type": "Image"} for name in image_columns}
    table = table.assign(**{name: table[name].map(dict) for name in image_columns})
    result = pa.Table.from_pandas(table, schema=pa.schema(fields), preserve_index=False)
    huggingface = {"huggingface": json.dumps({"info": {"features": features}})}
    return result.replace_schema_metadata({**(result.schema.metadata or {}), **huggingface})
