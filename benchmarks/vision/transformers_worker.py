# SPDX-License-Identifier: Apache-2.0
"""One workload of ``compare_vision.py`` on transformers: a static batch, as its ``generate`` makes
it; prints JSON.

The processor is put together by hand, as AutoProcessor needs packages that only its video half
uses.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "parity"))
import torch
import torchvision_operators  # noqa: F401  transformers can be imported beside any torchvision
import transformers
from cases import ANSWER_TOKENS, jpeg, picture, rates, turns
from PIL import Image
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string


class Model:
    """A folder opened with bf16 or float32 weights."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        self.processor = transformers.Idefics3ImageProcessorPil(**settings)
        self.tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), padding_side="left"
        )
        config = json.loads((folder / "tokenizer_config.json").read_text())
        self.template = config["chat_template"]
        self.tokenizer.pad_token = config["bos_token"]

    def inputs(self, conversations: list[Any]) -> dict[str, Any]:
        """Everything from encoded pictures to tensors."""
        pictures, texts = [], []
        for messages in conversations:
            items = [item for message in messages for item in message["content"]]
            data = next(item["image"] for item in items if item["type"] == "image")
            pictures.append([Image.open(io.BytesIO(data)).convert("RGB")])
        found = self.processor(pictures, return_tensors="pt", return_row_col_info=True)
        for index, messages in enumerate(conversations):
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=True,
            )
            rows, columns = found["rows"][index][0], found["cols"][index][0]
            tiles = get_image_prompt_string(
                rows,
                columns,
                64,
                fake_token_around_image="<fake_token_around_image>",
                image_token="<image>",
                global_image_token="<global-img>",
            )
            texts.append(text.replace("<image>", tiles, 1))
        tokens = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "pixel_values": found["pixel_values"].to(self.model.dtype),
            "pixel_attention_mask": found["pixel_attention_mask"],
        }

    @torch.inference_mode()
    def generate(self, conversations: list[Any], count: int) -> tuple[float, float]:
        """Seconds to the first token of all, and to the last."""
        start = time.perf_counter()
        firsts: list[float] = []

        class Stop(transformers.StoppingCriteria):
            def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
                firsts.append(time.perf_counter() - start)
                return torch.zeros(ids.shape[0], dtype=torch.bool)

        self.model.generate(
            **self.inputs(conversations),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            stopping_criteria=transformers.StoppingCriteriaList([Stop()]),
        )
        return firsts[0], time.perf_counter() - start


def preprocess(folder: Path, threads: int) -> dict[str, float]:
    """Pictures per second of the pillow processor, in one thread and in some."""
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    processor = transformers.Idefics3ImageProcessorPil(**settings)
    return rates(
        lambda image: processor([[image]], return_tensors="pt", return_row_col_info=True), threads
    )


def main() -> None:
    folder, workload, threads, dtype = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)
    if workload == "preprocess":
        print(json.dumps(preprocess(folder, threads)))
        return
    model = Model(folder, dtype)
    model.generate([turns(jpeg(picture(1000)))], 2)  # warm
    result: dict[str, float]
    if workload == "repeated":
        data = jpeg(picture(2000))
        result = {"new": model.generate([turns(data)], 1)[0]}
        result["repeated"] = model.generate([turns(data)], 1)[0]
        result["follow_up"] = model.generate([turns(data, follow_up=True)], 1)[0]
    else:
        count = int(workload)
        prompts = [turns(jpeg(picture(3000 + index))) for index in range(count)]
        first, wall = model.generate(prompts, ANSWER_TOKENS)
        result = {"ttft": first, "tokens_per_s": count * ANSWER_TOKENS / wall, "wall": wall}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
