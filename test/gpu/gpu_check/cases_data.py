"""Cases: features and augmentation on the device."""

from typing import List

from gpu_check.cases import Case


def cases() -> List[Case]:
    """Return the cases of this family."""
    return []
