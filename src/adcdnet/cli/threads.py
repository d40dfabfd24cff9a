"""How threads wait for one another. To be imported before PyTorch, whose OpenMP reads it once, when it is loaded.

A thread that has done its part of an operation spins until the others have; where another process has taken one of the
cores, that is what keeps them from it. Told to sleep soon, two threads on two busy cores map a scene ten times as fast
(scripts/RESULTS.md). Whoever has set the variable keeps it.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
