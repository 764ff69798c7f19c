"""Files that people send: where their bytes are kept, beside the sessions."""

from turnwise.files.base import FileStore, StoredFile
from turnwise.files.kinds import checked_kind
from turnwise.files.open import open_files

__all__ = ["FileStore", "StoredFile", "checked_kind", "open_files"]
