"""What a call used, in the shape every provider's report is brought into: wholes contain their parts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class ImageCount(Protocol):
    """Generated images of one size and quality, as `tollgate.ledger.v1.OutputImages` names them."""

    @property
    def size(self) -> str: ...
    @property
    def quality(self) -> str: ...
    @property
    def count(self) -> int: ...


class Quantities(Protocol):
    """The quantities of `tollgate.ledger.v1.Usage`, under its names and with its meanings. None is below 0."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cached_input_tokens(self) -> int: ...
    @property
    def cache_write_tokens(self) -> int: ...
    @property
    def cache_write_1h_tokens(self) -> int: ...
    @property
    def input_audio_tokens(self) -> int: ...
    @property
    def cached_input_audio_tokens(self) -> int: ...
    @property
    def input_image_tokens(self) -> int: ...
    @property
    def cached_input_image_tokens(self) -> int | None:
        """None when the provider did not say how many of the cached tokens were images; 0 when it said none."""

    @property
    def reasoning_tokens(self) -> int: ...
    @property
    def output_image_tokens(self) -> int: ...
    @property
    def output_audio_tokens(self) -> int: ...
    @property
    def input_images(self) -> int: ...
    @property
    def output_images(self) -> Iterable[ImageCount]: ...
    @property
    def web_searches(self) -> int: ...


@dataclass(frozen=True, slots=True)
class OutputImages:
    """Generated images of one size and quality."""

    size: str = ""
    quality: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """`Quantities` as a plain value."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    cached_input_audio_tokens: int = 0
    input_image_tokens: int = 0
    cached_input_image_tokens: int | None = None
    reasoning_tokens: int = 0
    output_image_tokens: int = 0
    output_audio_tokens: int = 0
    input_images: int = 0
    output_images: tuple[ImageCount, ...] = ()
    web_searches: int = 0


def normalise(usage: Quantities) -> tuple[Quantities, bool]:
    """Clamps every part that is larger than its whole, and says whether one was.

    Returns the very usage it was given when there is nothing to clamp. Parts that fit one by one but not together stay
    as reported: they are charged as the parts they claim to be, and what is left for the whole is never below 0.
    """
    if _is_consistent(usage):
        return usage, False

    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens)
    audio = min(usage.input_audio_tokens, usage.input_tokens)
    images = min(usage.input_image_tokens, usage.input_tokens)
    cached_images = usage.cached_input_image_tokens
    if cached_images is not None:
        cached_images = min(cached_images, images, cached)
    clamped = Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(usage.cache_write_1h_tokens, written),
        input_audio_tokens=audio,
        cached_input_audio_tokens=min(usage.cached_input_audio_tokens, audio, cached),
        input_image_tokens=images,
        cached_input_image_tokens=cached_images,
        reasoning_tokens=min(usage.reasoning_tokens, usage.output_tokens),
        output_image_tokens=min(usage.output_image_tokens, usage.output_tokens),
        output_audio_tokens=min(usage.output_audio_tokens, usage.output_tokens),
        input_images=usage.input_images,
        output_images=tuple(usage.output_images),
        web_searches=usage.web_searches,
    )
    return clamped, True


def _is_consistent(usage: Quantities) -> bool:
    whole = usage.input_tokens
    cached = usage.cached_input_tokens
    audio = usage.input_audio_tokens
    images = usage.input_image_tokens
    cached_images = usage.cached_input_image_tokens
    output = usage.output_tokens
    return (
        cached <= whole
        and usage.cache_write_1h_tokens <= usage.cache_write_tokens <= whole
        and usage.cached_input_audio_tokens <= audio <= whole
        and usage.cached_input_audio_tokens <= cached
        and images <= whole
        and (cached_images is None or (cached_images <= images and cached_images <= cached))
        and usage.reasoning_tokens <= output
        and usage.output_image_tokens <= output
        and usage.output_audio_tokens <= output
    )
