"""What can go wrong in the ledger, beyond what any service knows."""

from services.common.errors import DomainError, ErrorKind


class SequenceGapError(DomainError):
    """Records of a producer that skip some it has not delivered yet."""

    kind = ErrorKind.NOT_READY
    reason = "SEQUENCE_GAP"

    def __init__(self, committed_sequence: int, first_sequence: int) -> None:
        super().__init__(
            f"sequence {first_sequence} does not follow {committed_sequence}, which is committed; "
            f"go on with {committed_sequence + 1}",
            committed_sequence=str(committed_sequence),
            sequence=str(first_sequence),
        )


class TooManyAlertRulesError(DomainError):
    """One rule more than an organization may have."""

    kind = ErrorKind.INVALID
    reason = "TOO_LARGE"

    def __init__(self, maximum: int) -> None:
        super().__init__(
            f"An organization has at most {maximum} alert rules; delete one first.",
            field="alert_rules",
            maximum=str(maximum),
        )
