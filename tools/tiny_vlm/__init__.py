# SPDX-License-Identifier: Apache-2.0
"""What the tiny vision-language model learns from: drawn pictures, questions about them, its
tokenizer. ``tools/train_tiny_vlm.py`` trains on it, ``tools/score_tiny_vlm.py`` and the tests score
with it.
"""
