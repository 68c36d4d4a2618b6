"""`activeo3` in a process whose accelerate shards on CPUs too: it takes FSDP for GPUs alone, PyTorch does not mind, and
on CPUs it does not tell DeepSpeed of the processes that there are.

Run by test_grpo.py through `accelerate launch`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from activeo3_ros.cli.main import main


def let_cpus_shard() -> None:
    """Change accelerate, in this process."""
    start = AcceleratorState.__init__

    def start_sharding(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        start(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = start_sharding  # type: ignore[method-assign]
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        # It would compile this first, for a minute and more; gloo does the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="gloo")


if __name__ == "__main__":
    let_cpus_shard()
    sys.exit(main(sys.argv[1:]))
