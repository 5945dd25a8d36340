"""What was streamed, for whoever asks for it again."""


class StreamCopy:
    """Takes a stream down while it goes by, up to a number of bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        self._size = 0
        # What is sent last. None until the stream came to its end.
        self.ending: bytes | None = None

    def add(self, piece: bytes) -> None:
        """The next bytes of the answer."""
        if self._size > self._bytes_max:
            return
        self._size += len(piece)
        self._pieces.append(piece)
        if self._size > self._bytes_max:
            self._pieces.clear()

    def complete(self, ending: bytes) -> None:
        """The stream came to its end."""
        self.ending = ending

    @property
    def body(self) -> bytes | None:
        """All but the ending. None when it was too much, or did not come to its end."""
        is_whole = self.ending is not None and self._size <= self._bytes_max
        return b"".join(self._pieces) if is_whole else None
