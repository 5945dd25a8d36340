"""What a fault has to work with."""

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.faults.books_model import Model
from tests.faults.load import Load
from tests.faults.system import Customer, System


@dataclass(frozen=True, slots=True)
class Scene:
    """Lives for one run."""

    system: System
    customer: Customer
    load: Load
    model: Model
    dice: random.Random


# Strikes while clients call, and returns when nothing is broken any more.
Fault = Callable[[Scene], Awaitable[None]]
Faults = Mapping[str, Fault]
