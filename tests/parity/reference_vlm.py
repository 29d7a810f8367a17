# SPDX-License-Identifier: Apache-2.0
"""Token ids and float32 logits of vision-language models by transformers.

Placeholders are expanded by the code of transformers' own processors, called with stand-ins for the
parts of a processor that need packages this reference does without. Nothing here uses manymind's
preprocessing or prompts.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from reference_video import process_video
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.llava_onevision.processing_llava_onevision import (
    LlavaOnevisionProcessor,
)
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.smolvlm.processing_smolvlm import (
    DEFAULT_CHAT_TEMPLATE,
    SmolVLMProcessor,
    get_image_prompt_string,
)
from vlm_cases import FPS, Conversation

Array = np.ndarray[Any, Any]


class VlmReference:
    """A model folder opened by transformers, in float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self.tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json")
        )
        self.template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        videos = folder / "video_preprocessor_config.json"
        self.side = _SIDES[self.model.config.model_type](self.model.config, settings)
        self.side.video_settings = json.loads(videos.read_text()) if videos.exists() else settings

    @torch.inference_mode()
    def run(self, conversation: Conversation) -> tuple[list[int], Array]:
        """Ids and logits, [tokens, vocab_size]."""
        ids, inputs = self._inputs(conversation)
        logits = self.model(input_ids=torch.tensor([ids]), **inputs).logits[0]
        return ids, logits.float().numpy()

    @torch.inference_mode()
    def generate(self, conversation: Conversation, count: int) -> list[int]:
        """Greedy tokens; each from a run over everything before it."""
        ids, inputs = self._inputs(conversation)
        tokens: list[int] = []
        for _ in range(count):
            inputs |= self._token_types(ids + tokens, inputs)
            logits = self.model(input_ids=torch.tensor([ids + tokens]), **inputs).logits[0, -1]
            tokens.append(int(logits.argmax()))
        return tokens

    def _inputs(self, conversation: Conversation) -> tuple[list[int], dict[str, Any]]:
        own = getattr(self.side, "video_template", self.template)
        rendered = self.tokenizer.apply_chat_template(
            conversation.messages,
            chat_template=own if conversation.videos else self.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        inputs, images, videos = self.side.process(conversation)
        waiting = {self.side.image_token: iter(images), self.side.video_token: iter(videos)}
        tokens = [re.escape(token) for token in (self.side.video_token, self.side.image_token)]
        pattern = "|".join(token for token in tokens if token)
        rendered = re.sub(pattern, lambda match: next(waiting[match.group()]), rendered)
        assert not any(list(left) for left in waiting.values())
        ids = self.tokenizer.encode(rendered, add_special_tokens=False)
        return ids, inputs | self._token_types(ids, inputs)

    def _token_types(self, ids: list[int], inputs: dict[str, Any]) -> dict[str, Any]:
        """What marks the tokens of pictures, for models that want it."""
        name = getattr(self.side, "token_types_name", "")
        return {name: self.side.token_types(ids)} if name and inputs else {}


class _QwenSide:
    image_token, video_token = "<|image_pad|>", "<|video_pad|>"
    token_types_name = "mm_token_type_ids"

    def __init__(self, config: Any, settings: dict[str, Any]) -> None:
        self.config = config
        self.settings = settings
        self.processor = transformers.Qwen2VLImageProcessorPil(**settings)
        self.timestamps = config.model_type == "qwen3_vl"
        if self.timestamps:
            self.video_token = "<|vision_start|><|video_pad|><|vision_end|>"

    def token_types(self, ids: list[int]) -> torch.Tensor:
        array = np.array([ids])
        kinds = (array == self.config.image_token_id) + 2 * (array == self.config.video_token_id)
        return torch.from_numpy(kinds.astype(np.int32))

    def process(self, conversation: Conversation) -> tuple[dict[str, Any], list[str], list[str]]:
        inputs: dict[str, Any] = {}
        stub = SimpleNamespace(
            image_processor=self.processor,
            video_processor=self.processor,
            image_token="<|image_pad|>",
            video_token="<|video_pad|>",
            vision_start_token="<|vision_start|>",
            vision_end_token="<|vision_end|>",
        )
        images, videos = [], []
        if conversation.images:
            found = self.processor(conversation.images, return_tensors="pt")
            inputs |= {name: found[name] for name in ("pixel_values", "image_grid_thw")}
            count = range(len(conversation.images))
            images = [Qwen2VLProcessor.replace_image_token(stub, found, index) for index in count]
        for frames in conversation.videos:
            name = "Qwen3VLVideoProcessor" if self.timestamps else "Qwen2VLVideoProcessor"
            shown = process_video(name, self.video_settings, frames, FPS)
            metadata = shown["video_metadata"][0]
            names = ("pixel_values_videos", "video_grid_thw")
            inputs |= {name: shown[name] for name in names}
            found = {"video_grid_thw": inputs["video_grid_thw"]}
            if self.timestamps:
                stub._calculate_timestamps = MethodType(
                    Qwen3VLProcessor._calculate_timestamps, stub
                )
                found["video_metadata"] = [metadata]
                videos.append(Qwen3VLProcessor.replace_video_token(stub, found, 0))
            else:
                videos.append(Qwen2VLProcessor.replace_video_token(stub, found, 0))
                if self.config.model_type == "qwen2_5_vl":
                    step = self.settings["temporal_patch_size"]
                    inputs["second_per_grid_ts"] = torch.tensor([step / metadata.sampled_fps])
        return inputs, images, videos


class _LlavaSide:
    image_token, video_token = "<image>", ""

    def __init__(self, config: Any, settings: dict[str, Any]) -> None:
        self.processor = transformers.CLIPImageProcessorPil(**settings)
        self.stub = SimpleNamespace(
            patch_size=config.vision_config.patch_size,
            num_additional_image_tokens=1,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_token=self.image_token,
        )

    def process(self, conversation: Conversation) -> tuple[dict[str, Any], list[str], list[str]]:
        if not conversation.images:
            return {}, [], []
        found = self.processor(conversation.images, return_tensors="pt")
        count = range(len(conversation.images))
        texts = [LlavaProcessor.replace_image_token(self.stub, found, index) for index in count]
        return {"pixel_values": found["pixel_values"]}, texts, []


class _Gemma3Side:
    image_token, video_token = "<start_of_image>", ""
    token_types_name = "token_type_ids"

    def __init__(self, config: Any, settings: dict[str, Any]) -> None:
        self.config = config
        self.processor = transformers.Gemma3ImageProcessorPil(**settings)
        self.pan_and_scan = {
            name: settings.get(name, default)
            for name, default in Gemma3Processor.images_kwargs.items()
        }
        tokens = "<image_soft_token>" * config.mm_tokens_per_image
        sequence = f"\n\n<start_of_image>{tokens}<end_of_image>\n\n"
        self.stub = SimpleNamespace(full_image_sequence=sequence)

    def token_types(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([[int(token == self.config.image_token_id) for token in ids]])

    def process(self, conversation: Conversation) -> tuple[dict[str, Any], list[str], list[str]]:
        if not conversation.images:
            return {}, [], []
        found = self.processor(conversation.images, return_tensors="pt", **self.pan_and_scan)
        count = range(len(conversation.images))
        texts = [Gemma3Processor.replace_image_token(self.stub, found, index) for index in count]
        return {"pixel_values": found["pixel_values"]}, texts, []


class _Idefics3Side:
    image_token, video_token = "<image>", ""

    def __init__(self, config: Any, settings: dict[str, Any]) -> None:
        self.processor = transformers.Idefics3ImageProcessorPil(**settings)
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        self.num_tokens = side**2 // config.scale_factor**2

    def process(self, conversation: Conversation) -> tuple[dict[str, Any], list[str], list[str]]:
        if not conversation.images:
            return {}, [], []
        found = self.processor([conversation.images], return_tensors="pt", return_row_col_info=True)
        texts = [
            get_image_prompt_string(
                rows,
                columns,
                self.num_tokens,
                fake_token_around_image="<fake_token_around_image>",
                image_token=self.image_token,
                global_image_token="<global-img>",
            )
            for rows, columns in zip(found["rows"][0], found["cols"][0], strict=True)
        ]
        names = ("pixel_values", "pixel_attention_mask")
        return {name: found[name] for name in names}, texts, []


class _SmolVlmSide(_Idefics3Side):
    """Pictures as Idefics3, or one video."""

    video_token = "<video>"
    video_template = DEFAULT_CHAT_TEMPLATE

    def process(self, conversation: Conversation) -> tuple[dict[str, Any], list[str], list[str]]:
        if not conversation.videos:
            return super().process(conversation)
        assert not conversation.images
        (frames,) = conversation.videos
        found = process_video("SmolVLMVideoProcessor", self.video_settings, frames, FPS)
        stub = SimpleNamespace(
            image_seq_len=self.num_tokens,
            image_token=self.image_token,
            fake_image_token="<fake_token_around_image>",
            global_image_token="<global-img>",
        )
        texts = [SmolVLMProcessor.replace_video_token(stub, found, 0)]
        names = ("pixel_values", "pixel_attention_mask")
        return {name: found[name] for name in names}, [], texts


class _InternVlSide:
    image_token, video_token = "<IMG_CONTEXT>", "<video>"

    def __init__(self, config: Any, settings: dict[str, Any]) -> None:
        self.processor = transformers.GotOcr2ImageProcessorPil(**settings)
        self.stub = SimpleNamespace(
            start_image_token="<img>",
            end_image_token="</img>",
            image_token=self.image_token,
            image_seq_length=config.image_seq_length,
        )

    def process(self, conversation: Conversation) -> tuple[dict[str, Any], list[str], list[str]]:
        pixels, images, videos = [], [], []
        if conversation.images:
            found = self.processor(conversation.images)
            pixels += list(found["pixel_values"])
            count = range(len(conversation.images))
            images = [
                InternVLProcessor.replace_image_token(self.stub, found, index) for index in count
            ]
        for frames in conversation.videos:
            inputs = process_video("InternVLVideoProcessor", self.video_settings, frames, FPS)
            pixels += list(inputs["pixel_values_videos"][0].numpy())
            videos.append(InternVLProcessor.replace_video_token(self.stub, inputs, 0))
        if not pixels:
            return {}, [], []
        return {"pixel_values": torch.from_numpy(np.stack(pixels))}, images, videos


class _OnevisionSide:
    image_token, video_token = "<image>", "<video>"

    def __init__(self, config: Any, settings: dict[str, Any]) -> None:
        self.config = config
        self.processor = transformers.LlavaOnevisionImageProcessorPil(**settings)
        vision = config.vision_config
        self.stub = SimpleNamespace(
            num_image_tokens=(vision.image_size // vision.patch_size) ** 2,
            vision_feature_select_strategy="full",
            image_token=self.image_token,
            video_token=self.video_token,
            vision_aspect_ratio=config.vision_aspect_ratio,
            image_processor=self.processor,
        )
        for name in ("_get_number_of_features", "_get_unpadded_features"):
            setattr(self.stub, name, MethodType(getattr(LlavaOnevisionProcessor, name), self.stub))

    def process(self, conversation: Conversation) -> tuple[dict[str, Any], list[str], list[str]]:
        inputs: dict[str, Any] = {}
        images, videos = [], []
        if conversation.images:
            found = self.processor([conversation.images], return_tensors="pt")
            names = ("pixel_values", "image_sizes", "batch_num_images")
            inputs |= {name: torch.as_tensor(found[name]) for name in names}
            count = range(len(conversation.images))
            replace = LlavaOnevisionProcessor.replace_image_token
            images = [replace(self.stub, found, index) for index in count]
        for frames in conversation.videos:
            settings = {**self.video_settings, "image_grid_pinpoints": None}
            shown = process_video("LlavaOnevisionVideoProcessor", settings, frames, FPS)
            pixels = shown["pixel_values_videos"]
            inputs["pixel_values_videos"] = pixels
            found = {"pixel_values_videos": pixels}
            videos.append(LlavaOnevisionProcessor.replace_video_token(self.stub, found, 0))
            side = math.isqrt(self.stub.num_image_tokens)
            assert side**2 == self.stub.num_image_tokens
        return inputs, images, videos


_SIDES: dict[str, Any] = {
    "qwen2_vl": _QwenSide,
    "qwen2_5_vl": _QwenSide,
    "qwen3_vl": _QwenSide,
    "gemma3": _Gemma3Side,
    "llava": _LlavaSide,
    "idefics3": _Idefics3Side,
    "smolvlm": _SmolVlmSide,
    "internvl": _InternVlSide,
    "llava_onevision": _OnevisionSide,
}
