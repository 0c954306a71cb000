"""Environment of an engine in the test process; import before torch or vLLM."""

import os

from orchestration.cluster.process import Placement

os.environ.update(Placement(num_gpus=0, cores=(), threads=1).environment())
