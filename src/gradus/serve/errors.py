"""What a client did wrong, or what the server cannot do now, as the error object that OpenAI's clients read."""

from __future__ import annotations

from math import ceil
from typing import Any

from starlette.responses import JSONResponse

from gradus.core.errors import ConfigError, DataError, GradusError, MissingPackageError
from gradus.engine.turn import PromptTooLongError

INVALID = "invalid_request_error"
SERVER = "server_error"
_MOST_MESSAGE_CHARACTERS, _MOST_PARAM_CHARACTERS = 1000, 100


class ApiError(GradusError):
    """One request that gets no answer.

    status: of HTTP. kind, code, param: OpenAI's `type`, `code` and `param`. retry_after: seconds after which it may
    be sent again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status, self.kind, self.code, self.retry_after = status, kind, code, retry_after
        # Both may quote the client, whose words can be as long as a body.
        self.param = param and param[:_MOST_PARAM_CHARACTERS]
        super().__init__(message[:_MOST_MESSAGE_CHARACTERS])

    def to_json(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that would be refused however often it is sent."""
    return ApiError(400, message, param=param, code=code)


def unsupported(param: str, message: str) -> ApiError:
    """A parameter that has a meaning elsewhere and cannot be honoured here."""
    return bad_request(message, param, "unsupported_parameter")


def busy(message: str, retry_after: float, code: str = "rate_limit_exceeded") -> ApiError:
    """Too much at once, or in too short a time."""
    return ApiError(429, message, kind="rate_limit_error", code=code, retry_after=retry_after)


def unavailable(message: str, retry_after: float | None = None) -> ApiError:
    """The server is there and cannot answer now."""
    return ApiError(503, message, kind=SERVER, code="unavailable", retry_after=retry_after)


def from_engine(error: GradusError) -> ApiError:
    """What the engine has against a request, as an answer to the client."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, PromptTooLongError):
        return bad_request(str(error), "messages", "context_length_exceeded")
    if isinstance(error, ConfigError | DataError):
        return bad_request(str(error))
    if isinstance(error, MissingPackageError):
        return bad_request(str(error), code="unsupported_parameter")
    return ApiError(500, str(error), kind=SERVER)


def error_response(error: ApiError) -> JSONResponse:
    """The reply to a request that gets no answer."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, ceil(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.to_json(), error.status, headers)
