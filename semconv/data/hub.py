"""Hugging Face `datasets`: hub names and local Parquet folders, as tables or as streams."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from semconv.configuration import one_line
from semconv.data.errors import SourceMissing
from semconv.data.images import HubImages
from semconv.data.streams import StreamImages
from semconv.files import user_path

ROWS = 16  # of a stream, read at a time


def open_hub(name: str, split: str, channels: int, image_column: str | None, label_column: str | None) -> HubImages:
    """A split as a table. See `ImageData` for the arguments.

    Raises:
        ValueError: the data, the split or a column is missing.
    """
    table = _load(name, split, streaming=False)
    image, label = find_columns(table.features, image_column, label_column)
    return HubImages(_undecoded(table, image), image, label, channels)


def open_hub_stream(
    name: str,
    split: str,
    channels: int,
    image_column: str | None,
    label_column: str | None,
    num_images: int | None,
) -> StreamImages:
    """A split as a stream. See `ImageData` for the arguments.

    Raises:
        ValueError: the data, the split, a column or the length is missing.
    """
    stream = _load(name, split, streaming=True)
    if stream.features is None:
        stream = stream._resolve_features()  # reads the first rows
    image, label = find_columns(stream.features, image_column, label_column)
    names = getattr(stream.features[label], "names", None) if label else None
    known = (stream.info.splits or {}).get(split)
    return StreamImages(
        partial(_iterate, name, _undecoded(stream, image), image, label),
        num_images or (known.num_examples if known else None),
        channels,
        names,
    )


def find_columns(features: Mapping[str, Any], image_column: str | None, label_column: str | None) -> tuple[str, str | None]:
    """Find the image column and the label column (None if there is none).

    Raises:
        ValueError: a given column is missing, no column holds images, the given one cannot, or labels are not integers.
    """
    images = [name for name, feature in features.items() if _is_image(feature)]
    labels = [name for name, feature in features.items() if hasattr(feature, "names")]
    labels += [name for name in ("label", "labels") if name in features and name not in labels]
    for given in (image_column, label_column):
        if given is not None and given not in features:
            raise ValueError(f"there is no column {given!r}: choose among {', '.join(features)}")
    if not images and image_column is None:
        raise ValueError(f"no column holds images: name one of {', '.join(features)} as image_column")
    image, label = image_column or images[0], label_column or (labels[0] if labels else None)
    if not _may_be_image(features[image]):
        raise ValueError(f"image column {image!r} is {features[image]}: name a column of image files or of their paths")
    if label is not None and not _is_label(features[label]):
        raise ValueError(f"label column {label!r} is {features[label]}: cast it to ClassLabel or integers, or name another")
    return image, label


def _is_image(feature: Any) -> bool:
    # written without datasets' own metadata, an image is a struct of bytes and path
    return type(feature).__name__ == "Image" or (isinstance(feature, dict) and {"bytes", "path"} == set(feature))


def _may_be_image(feature: Any) -> bool:
    if isinstance(feature, dict):
        return not {"bytes", "path"}.isdisjoint(feature)
    return _is_image(feature) or getattr(feature, "dtype", None) in ("binary", "large_binary", "string", "large_string")


def _is_label(feature: Any) -> bool:
    return hasattr(feature, "names") or (type(feature).__name__ == "Value" and feature.dtype.startswith(("int", "uint")))


def _load(name: str, split: str, streaming: bool) -> Any:
    if name.startswith(("/", ".", "~")) and not user_path(name).exists():
        raise SourceMissing(f"there is no folder {name}: correct the path or download the data")
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} needs the package datasets: pip install datasets") from error
    path = user_path(name)
    try:
        return datasets.load_dataset(str(path) if path.exists() else name, split=split, streaming=streaming)
    except Exception as error:  # of datasets, its file systems and its HTTP client
        missing = f"{name} cannot be loaded: {one_line(_cause(error))}"
        if path.exists():
            raise ValueError(f"{missing}; restore its files, and remove those without rows") from error
        raise SourceMissing(f"{missing}; give the path of a local copy or a name that the hub has") from error


def _undecoded(data: Any, image_column: str) -> Any:
    import datasets

    return data.cast_column(image_column, datasets.Image(decode=False))


def _iterate(name: str, stream: Any, image_column: str, label_column: str | None) -> Iterator[tuple[Any, int]]:
    try:
        # row by row, datasets would give each worker of a DataLoader some of the files
        for rows in stream.iter(ROWS):
            labels = rows[label_column] if label_column else [None] * len(rows[image_column])
            for image, label in zip(rows[image_column], labels, strict=True):
                yield image, -1 if label is None else label
    except Exception as error:  # of datasets, its file systems and its HTTP client
        said = f"{name} cannot be read: {one_line(_cause(error))}; restore its files, and remove those without rows"
        raise ValueError(said) from error


def _cause(error: Exception) -> Exception:
    """The first of the errors that led to one: datasets wraps what its readers say."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
