# SPDX-License-Identifier: Apache-2.0
"""``/abort_request``, as SGLang offers it: ends requests whose clients cannot just leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from manymind.server.errors import ApiError
from manymind.server.messages import RequestModel, json_response, read_model, record_of
from manymind.server.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

RequestId = Annotated[str, Field(min_length=1, max_length=128)]


class AbortRequest(RequestModel):
    """Which requests: by the ``x-request-id`` of their answers, or all of this key."""

    rid: RequestId | Annotated[list[RequestId], Field(max_length=1024)] | None = None
    abort_all: bool = False


async def abort(request: Request, service: Service) -> Response:
    """Ends them; answers how many there were. Of other keys' requests it knows nothing."""
    body = await read_model(request, service, AbortRequest)
    if (body.rid is None) != body.abort_all:
        message = "rid: expected either ids of requests or abort_all=true"
        raise ApiError(400, message, "invalid_value", "rid")
    wanted = {body.rid} if isinstance(body.rid, str) else body.rid
    return json_response({"aborted": service.abort(record_of(request).key, wanted)})
