"""What a Parquet file may ask of its reader: sizes are checked before Arrow allocates them.

    metadata = read_footer(file)                        # never nested deeper than Arrow's recursion can take
    size = chunk_size(data, metadata, group, column)    # bytes that a column chunk takes in memory

A file of some kilobytes may hold a page that decompresses to gigabytes, a run of 2^31 equal values, or a dictionary
whose one long value every row refers to. Digests are no help: whoever writes such a file writes them as well.
"""

import io
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.data.parquet.columns import nested_deeper
from ae_pipeline.data.parquet.thrift import read_struct
from ae_pipeline.files import arrow_file

MOST_ROW_GROUP_BYTES = 512 << 20
"""Largest size in memory of a row group, all columns together. Writers keep to it, so readers may insist."""
_DEEPEST_COLUMN = 100
# Arrow goes down a schema by recursion, and overflows the stack at some 50,000 levels. Footers with fewer items than
# these are left to it alone: our own look takes longer.
_MOST_ITEMS = 10_000
_SCHEMA = 2
_TAIL_BYTES = 8  # the length of the footer, and PAR1
_MOST_FOOTER_BYTES = 256 << 20
_COMPRESSIONS = ("ZSTD", "UNCOMPRESSED")
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_PLAIN, _PLAIN_DICTIONARY, _RLE, _DELTA_BINARY_PACKED, _RLE_DICTIONARY, _BYTE_STREAM_SPLIT = 0, 2, 3, 5, 8, 9
_BY_DICTIONARY = (_PLAIN_DICTIONARY, _RLE_DICTIONARY)
# Encodings that build a value from the one before are left out: a page of a kilobyte could hold any amount of text.
_ENCODINGS = (_PLAIN, _RLE, _DELTA_BINARY_PACKED, _BYTE_STREAM_SPLIT, *_BY_DICTIONARY)
# Page headers: kind, bytes uncompressed and compressed; for each kind its own field, with values and encoding.
_KIND, _UNCOMPRESSED, _COMPRESSED = 1, 2, 3
_DICTIONARY_PAGE = 2
_DETAILS = {0: (5, 1, 2), _DICTIONARY_PAGE: (7, 1, 2), 3: (8, 1, 4)}


def read_footer(source: Path | IO[bytes] | io.RawIOBase) -> Any:
    """The footer of a Parquet file.

    Raises ValueError for a schema that would crash Arrow, and what Arrow raises for what is no footer.
    """
    with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as file:
        size, length = _footer_length(file)
        if length > min(_MOST_FOOTER_BYTES, size):
            raise ValueError(f"its footer has {length:,} bytes, at most {min(_MOST_FOOTER_BYTES, size):,} are allowed")
        metadata = _read_footer(arrow_file(source) if isinstance(source, Path) else file, file)
    dots = max((metadata.schema.column(n).path.count(".") for n in range(metadata.num_columns)), default=0)
    # Dots may be of names, too.
    if dots > _DEEPEST_COLUMN and any(
        nested_deeper(field.type, _DEEPEST_COLUMN) for field in metadata.schema.to_arrow_schema()
    ):
        raise ValueError(f"its columns are nested deeper than {_DEEPEST_COLUMN} levels")
    return metadata


def _footer_length(file: Any) -> tuple[int, int]:
    """Bytes of the file and, as it says, of its footer; 0 where it is too short to say."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    return size, int.from_bytes(tail[:4], "little") if tail[4:] == b"PAR1" else 0


def _read_footer(source: Any, file: Any) -> Any:
    try:
        with pq.ParquetFile(source, thrift_container_size_limit=_MOST_ITEMS, pre_buffer=False) as parquet:
            return parquet.metadata
    except OSError as error:
        if "size limit" not in str(error):
            raise
        _check_schema(file)
        return pq.read_metadata(source)


def chunk_size(data: bytes, metadata: Any, group: int, column: int) -> int:
    """Bytes in memory of the column chunk that `data` is, at most or exactly. Raises ValueError if it is too large,
    or if its pages are not what the footer says.
    """
    schema, chunk = metadata.schema.column(column), metadata.row_group(group).column(column)
    if chunk.compression not in _COMPRESSIONS:
        raise ValueError(f"column {schema.path} is compressed with {chunk.compression}, expected zstd")
    pages = _pages(memoryview(data))
    values = sum(page.values for page in pages if not page.is_dictionary)
    rows = metadata.row_group(group).num_rows
    if values != chunk.num_values or (values != rows if schema.max_repetition_level == 0 else values < rows):
        raise ValueError(f"column {schema.path} has {values} values in row group {group}, expected {chunk.num_values}")
    size = sum(page.uncompressed for page in pages)
    if schema.physical_type != "BYTE_ARRAY":
        size = max(size, values * _WIDTHS.get(schema.physical_type, schema.length))
    elif any(page.is_dictionary for page in pages) and size <= MOST_ROW_GROUP_BYTES:
        referring = sum(page.values for page in pages if page.encoding in _BY_DICTIONARY)
        longest = sum(page.uncompressed for page in pages if page.is_dictionary)
        if size + referring * longest > MOST_ROW_GROUP_BYTES:
            size += _expanded(data, metadata, group, column, longest=longest, most=referring * longest)
    if size > MOST_ROW_GROUP_BYTES:
        raise ValueError(f"column {schema.path} would take {size} bytes in row group {group}, {_allowed()}")
    return size


def too_large(size: int, group: int, most: int = MOST_ROW_GROUP_BYTES) -> ValueError:
    """The error of a row group whose columns are too large together."""
    return ValueError(f"row group {group} would take {size} bytes in memory, {_allowed(most)}")


def chunk_range(metadata: Any, group: int, column: int) -> tuple[int, int]:
    """Where a column chunk begins and ends in the file."""
    chunk = metadata.row_group(group).column(column)
    offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
    start = min(offset for offset in offsets if offset)
    return start, start + chunk.total_compressed_size


@dataclass(frozen=True)
class _Page:
    is_dictionary: bool
    uncompressed: int
    values: int
    encoding: int


def _allowed(most: int = MOST_ROW_GROUP_BYTES) -> str:
    return f"at most {most} are allowed"


def _check_schema(file: Any) -> None:
    """Raise ValueError unless the schema in the footer has few items."""
    size, length = _footer_length(file)
    file.seek(max(0, size - _TAIL_BYTES - length))
    fields, _ = read_struct(memoryview(file.read(length)), 0)
    schema = fields.get(_SCHEMA)
    if not isinstance(schema, list) or len(schema) > _MOST_ITEMS:
        raise ValueError(f"its schema has more than {_MOST_ITEMS} items")


def _pages(data: memoryview) -> list[_Page]:
    pages: list[_Page] = []
    position = 0
    while position < len(data):
        header, position = read_struct(data, position)
        kind, uncompressed, compressed = (_number(header, key) for key in (_KIND, _UNCOMPRESSED, _COMPRESSED))
        if kind not in _DETAILS:
            raise ValueError("it has a page of unknown kind")
        place, values_at, encoding_at = _DETAILS[kind]
        details = header.get(place)
        values, encoding = _number(details, values_at), _number(details, encoding_at)
        if compressed > len(data) - position:
            raise ValueError("it has a page that is longer than its column")
        if encoding not in _ENCODINGS:
            raise ValueError("it has a page of an encoding that latent stores do not use")
        if kind == _DICTIONARY_PAGE and pages:
            raise ValueError("it has a dictionary behind other pages")
        pages.append(_Page(kind == _DICTIONARY_PAGE, uncompressed, values, encoding))
        position += compressed
    return pages


def _number(fields: Any, key: int) -> int:
    """A field of a page header that must be there."""
    value = fields.get(key) if isinstance(fields, dict) else None
    if type(value) is not int or value < 0:
        raise ValueError("it has a page that does not say its kind, size or number of values")
    return value


def _expanded(data: bytes, metadata: Any, group: int, column: int, *, longest: int, most: int) -> int:
    """Bytes of texts whose dictionary alone could be too much, counted while they are still numbers.

    `longest`: bytes that one text takes at most, `most`: that all of them do.
    """
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    file, path = _Chunk(data, chunk_range(metadata, group, column)[0]), paths[column]
    # Arrow is told by its path which column to leave as numbers. Where several have one, it takes the last.
    last = column == len(paths) - 1 - paths[::-1].index(path)
    if not last and metadata.schema.column(column).max_repetition_level:
        return most
    dictionary = [path] if last else []
    with pq.ParquetFile(file, metadata=metadata, read_dictionary=dictionary, pre_buffer=False) as parquet:
        rows = metadata.row_group(group).num_rows if last else max(1, MOST_ROW_GROUP_BYTES // longest)
        options = {"row_groups": [group], "column_indices": [column], "use_threads": False}
        size = 0
        for batch in parquet.reader.iter_batches(rows, **options):
            size += _text_bytes(batch.column(0))
            if size > MOST_ROW_GROUP_BYTES:
                break
    return size


def _text_bytes(array: Any) -> int:
    if pa.types.is_dictionary(array.type):
        lengths = pc.binary_length(array.dictionary).take(array.indices)
        return int(pc.sum(lengths, min_count=0).as_py())
    if pa.types.is_struct(array.type):
        return sum(_text_bytes(array.field(number)) for number in range(array.type.num_fields))
    if pa.types.is_map(array.type):
        return _text_bytes(array.keys) + _text_bytes(array.items)
    return _text_bytes(array.flatten()) if pa.types.is_nested(array.type) else int(array.nbytes)


class _Chunk(io.BytesIO):
    """A column chunk at its place in a file that holds nothing else."""

    def __init__(self, data: bytes, start: int):
        super().__init__(data)
        self._start = start

    def tell(self) -> int:
        return self._start + super().tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._start + super().seek(offset - self._start if whence == io.SEEK_SET else offset, whence)
