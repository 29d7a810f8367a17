# SPDX-License-Identifier: Apache-2.0
"""From decoded pictures to what a vision encoder reads; needs numpy and pillow only.

Installed as ``manymind.vision``. One module per set of preprocessing rules; the model families
choose theirs. Everything is a pure function of its arguments and may run on many threads: pillow
and numpy release the GIL where the time goes.
"""
