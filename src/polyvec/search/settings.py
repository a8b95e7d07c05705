"""How a folder is walked and its files are read."""

from dataclasses import dataclass

from polyvec.errors import InputError

MB = 10**6


@dataclass(frozen=True)
class ReadSettings:
    """What is read of a folder, and how much a single file may cost."""

    hidden: bool = False
    """Whether files and folders whose name starts with a dot are read."""
    ignore_files: bool = True
    """Whether ``.gitignore`` and ``.polyvecignore`` files are obeyed."""
    max_file_mb: int = 100
    """Larger files are listed, not read."""
    max_expanded_mb: int = 1_000
    """What a compressed document (DOCX, XLSX, EPUB, ...) may become when unpacked."""
    max_characters: int = 20_000_000
    """Of a document's text; beyond it, it is listed and not read."""
    read_timeout_s: float = 120.0
    """For reading and cutting one file."""
    read_memory_mb: int = 3_000
    """Of the process that reads, address space."""
    retry_failed: bool = False
    """Whether files that failed are tried again though they have not changed."""

    def __post_init__(self) -> None:
        for name in ("max_file_mb", "max_expanded_mb", "max_characters", "read_timeout_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.read_memory_mb < 500:
            raise InputError(
                f"read_memory_mb is {self.read_memory_mb}; the readers alone need 500."
            )
