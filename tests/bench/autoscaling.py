"""Ray's real autoscaler over the shipped `cluster/aws.yaml`: a real evaluation makes nodes of the right type come and
go.

An actor that stands for a training holds one fake p4d node all the while. An evaluation (`answer_all` with its labels
and markets, and a holder that echoes in place of a model, since the fake GPUs cannot compute) starts with no node to
run on. Measured: seconds from its start to the answer of its one question, the types that were launched, seconds until
its idle nodes are gone (at an idle time of 8 s instead of the shipped 10 minutes), and whether training kept its node.
The figure is the seconds to the answer.
"""

from __future__ import annotations

import time
from typing import Any

from ecellm.config.schema import Run
from ecellm.placement import place
from tests.cluster.autoscaled import Autoscaled, Echo, evaluated
from tests.cluster.labelled import kinds, on

ROUNDS = 3


def run() -> dict[str, Any]:
    """Some rounds of an evaluation beside one training."""
    from ecellm.session import quiet_init

    with Autoscaled("aws.yaml", no_capacity=("eval_g5_spot",)) as head:
        import ray

        quiet_init(address=head.address)
        try:
            settings = on(head.address, evaluate_markets=("spot", "on-demand"), market_wait_s=5)
            begun = time.monotonic()
            selector = place(settings, "train", 8)
            train_s = round(time.monotonic() - begun, 1)
            training = ray.remote(num_cpus=1, num_gpus=8, label_selector=selector)(Echo).remote()
            assert ray.get(training.answer.remote([1])) == [1]
            samples = [_round(settings) for _ in range(ROUNDS)]
            kept = ray.get(training.answer.remote([2])) == [2] and kinds() == ["head", "train"]
        finally:
            ray.shutdown()
        deadline = time.monotonic() + 20
        while len(head.happened("terminated")) < ROUNDS and time.monotonic() < deadline:
            time.sleep(0.3)
        created, ended = head.happened("created"), head.happened("terminated")
    right = all(kind.startswith("train") for kind in created[:1]) and all(k.startswith("eval") for k in created[1:])
    gone = len(ended) == len(created) - 1 and all(kind.startswith("eval") for kind in ended)
    answers = [one["first_answer_s"] for one in samples]
    return {
        "figure": sorted(answers)[len(answers) // 2], "unit": "s from a pending evaluation to its first answer",
        "versus": f"a gang of 8 GPUs for training: {train_s} s", "goal": 60, "holds": right and gone and kept,
        "samples": {"rounds": samples, "created": created, "terminated": ended, "training kept its node": kept},
        "how": __doc__,
    }  # fmt: skip


def _round(settings: Run) -> dict[str, float]:
    begun = time.monotonic()
    evaluated(settings)
    answered = time.monotonic()
    while "evaluate" in kinds() and time.monotonic() - answered < 90:
        time.sleep(0.3)
    return {"first_answer_s": round(answered - begun, 1), "gone_after_s": round(time.monotonic() - answered, 1)}
