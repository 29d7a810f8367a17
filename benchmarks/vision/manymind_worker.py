# SPDX-License-Identifier: Apache-2.0
"""One workload of ``compare_vision.py`` on manymind; prints JSON."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from cases import ANSWER_TOKENS, jpeg, picture, rates, turns

from manymind import EngineConfig, GenerationConfig, MediaLimits, VisionConfig, pipeline


def first_token(pipe: Any, messages: Any) -> float:
    """Seconds from the request to its first token."""
    config = GenerationConfig(max_new_tokens=1, ignore_eos=True)
    start = time.perf_counter()
    for _ in pipe.stream_infer(messages, config):
        break
    return time.perf_counter() - start


def concurrent(pipe: Any, count: int, seed: int) -> dict[str, float]:
    """``count`` requests at once, each with a picture of its own."""
    config = GenerationConfig(max_new_tokens=ANSWER_TOKENS, ignore_eos=True)
    prompts = [turns(jpeg(picture(seed + index))) for index in range(count)]
    firsts: list[float] = []
    start = time.perf_counter()

    def ask(prompt: Any) -> None:
        seen = False
        for _ in pipe.stream_infer(prompt, config):
            if not seen:
                firsts.append(time.perf_counter() - start)
                seen = True

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    return {"ttft": sum(firsts) / count, "tokens_per_s": count * ANSWER_TOKENS / wall, "wall": wall}


def preprocess(folder: str, threads: int) -> dict[str, float]:
    """Pictures per second, in one thread and in some."""
    from manymind.checkpoint import open_checkpoint
    from manymind.models import load_model
    from manymind.vision.rgb import to_rgb

    with open_checkpoint(folder) as checkpoint:
        vision = load_model(checkpoint).vision
        assert vision is not None
        rules = vision.preprocessor
        return rates(lambda image: rules.image(to_rgb(image)), threads)


def main() -> None:
    folder, workload, threads, weights = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    if workload == "preprocess":
        print(json.dumps(preprocess(folder, threads)))
        return
    engine = EngineConfig(
        max_batch_size=32, session_len=2048, num_threads=threads, weight_dtype=weights
    )
    vision = VisionConfig(limits=MediaLimits(), num_threads=threads)
    with pipeline(folder, engine, vision_config=vision) as pipe:
        first_token(pipe, turns(jpeg(picture(1000))))  # warm
        result: dict[str, float]
        if workload == "repeated":
            data = jpeg(picture(2000))
            result = {"new": first_token(pipe, turns(data))}
            result["repeated"] = first_token(pipe, turns(data))
            result["follow_up"] = first_token(pipe, turns(data, follow_up=True))
        else:
            result = concurrent(pipe, int(workload), 3000)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
