"""Names of files in an inbox: which are left alone, which cannot be kept, how they are shown, where they may be put."""

import re

from ae_pipeline.errors import printable

IMAGES_NAME = "_images.parquet"
"""The file that the images of one run become; files of an inbox with such names are left alone."""
REASON_SUFFIX = ".reason.txt"
# Copying programs write under such a name and rename when the file is whole.
_UNFINISHED = (
    *(".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload", ".!ut", ".aria2"),
    *(".incomplete", ".inprogress", ".uploading", ".upload", "._copying_", ".swp", ".lock", ".lck"),
)
_SYSTEM = re.compile(
    r"thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|icon\r|lost\+found|\$recycle\.bin|system volume information"
    r"|@eadir|#recycle|#snapshot",
    re.IGNORECASE,
)
_NOTES = re.compile(
    r"(readme|read\.me|license|licence|copying|changelog)(\.(md|txt|rst|html?|pdf))?"
    r"|(md5|sha1|sha256|sha512)sums?(\.txt)?|.*\.(md5|sha1|sha256|sha512)",
    re.IGNORECASE,
)
_LONGEST = 255  # bytes, in nearly all file systems
# What the quarantine adds to a name: a digest, `.reason.txt`, and what a file has while it is being written.
_LONGEST_PUT = _LONGEST - 60


def why_left_alone(name: str) -> str | None:
    """Why a file or folder of this name, without its folders, is not taken; None if it is."""
    lower = name.lower()
    if name.startswith((".", "_")):
        return "hidden, as its name begins with . or _"
    if lower.endswith(_UNFINISHED) or name.endswith("~") or name.startswith("~") or re.fullmatch("#.+#", name):
        return "named as unfinished, temporary or backup files are"
    if _SYSTEM.fullmatch(name):
        return "a file of the system"
    return "a note, no data" if _NOTES.fullmatch(name) else None


def finished_name(name: str) -> str | None:
    """What a file is called when it is whole; None if its name is not that of an unfinished one."""
    ending = next((ending for ending in _UNFINISHED if name.lower().endswith(ending)), None)
    return name[: -len(ending)] if ending else None


def shown(name: str) -> str:
    """A name, path or message on one line of text that everybody can read; what it hides is spelt out."""
    return printable(name).replace("\n", "\\n")


def put_name(name: str) -> str:
    """A path that a file of this name can have in any folder: no component leads out of it or is too long."""
    return "/".join(_put_component(part) for part in name.split("/"))


def _put_component(part: str) -> str:
    if part in ("", ".", ".."):
        return "%2E" * len(part) or "%"
    if part.endswith(REASON_SUFFIX):
        part += ".file"  # or the reason of another file would have its name
    data = part.encode("utf-8", "surrogateescape")
    if len(data) <= _LONGEST_PUT:
        return part
    # Cut in the middle: the beginning tells files apart, the ending what they are.
    return f"{data[:150].decode('utf-8', 'ignore')}...{data[-30:].decode('utf-8', 'ignore')}"
