"""What the spool reads from the environment."""

from dataclasses import dataclass

from services.common.settings import Environment, SettingError

_MIB = 1024 * 1024
# Below this nothing can be deleted before the limit is reached.
SEGMENT_COUNT_MIN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Sizes and times of one worker's spool."""

    # How large each file is, from its first byte on. At least 128 KiB. A record that
    # takes more than half of one is written without its payload.
    segment_bytes: int = 16 * _MIB
    # How much disk one worker may use. At least four segments.
    bytes_max: int = 1024 * _MIB
    # Least time between two syncs; a record that comes after a pause is synced at once.
    commit_interval_seconds: float = 0.002
    # How long to wait before trying a failing disk again.
    retry_seconds: float = 1.0

    @classmethod
    def read(cls, environment: Environment) -> "SpoolSettings":
        segment_mib = environment.integer("TOLLGATE_SPOOL_SEGMENT_MIB", 16, least=1, most=1024)
        mib_max = environment.integer("TOLLGATE_SPOOL_MIB_MAX", 1024, least=4, most=1024 * 1024)
        if mib_max < SEGMENT_COUNT_MIN * segment_mib:
            raise SettingError(
                f"TOLLGATE_SPOOL_MIB_MAX must be at least {SEGMENT_COUNT_MIN} times TOLLGATE_SPOOL_SEGMENT_MIB"
            )
        return cls(segment_bytes=segment_mib * _MIB, bytes_max=mib_max * _MIB)
