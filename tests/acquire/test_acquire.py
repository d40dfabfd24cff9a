"""From a box in degrees to a pair that trains."""

from conftest_acquire import *  # noqa: F403
