"""The error codes a client can meet, each with its HTTP status and OpenAI `type`.

One table, so that the gateway, the documentation and the tests cannot disagree. A code is stable:
clients may branch on it. Messages are for people and may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of error."""

    status: int
    type: str
    meaning: str
    retry_after_s: int | None = None


class Code(Enum):
    """Stable `error.code` values; `.value` is the Problem."""

    INVALID_REQUEST = Problem(400, "invalid_request_error", "The request breaks HTTP or names a bad value.")
    INVALID_JSON = Problem(400, "invalid_request_error", "The body is not a JSON object.")
    JSON_TOO_COMPLEX = Problem(
        400, "invalid_request_error", "The body nests too deep or holds too many values."
    )
    MISSING_FIELD = Problem(400, "invalid_request_error", "A field that the endpoint needs is not there.")
    INVALID_VALUE = Problem(
        400, "invalid_request_error", "A field has a wrong type or a value out of bounds."
    )
    FIELD_NOT_ALLOWED = Problem(400, "invalid_request_error", "A field that this endpoint refuses.")
    REMOTE_MEDIA_NOT_ALLOWED = Problem(
        400, "invalid_request_error", "Media must be sent inline as a data: URL."
    )
    CONTEXT_LENGTH_EXCEEDED = Problem(
        400, "invalid_request_error", "Prompt and answer do not fit the model's context."
    )
    UNSUPPORTED_ENDPOINT = Problem(
        400, "invalid_request_error", "The model does not do what this endpoint asks for."
    )
    ENGINE_REJECTED = Problem(
        400, "invalid_request_error", "The engine refused the request; the message says why."
    )
    GRAMMAR_REJECTED = Problem(
        400,
        "invalid_request_error",
        "A regex, grammar or JSON schema that the engine cannot hold an answer to, or not within its time.",
    )
    TOOLS_NOT_ENABLED = Problem(
        400,
        "invalid_request_error",
        "The model's deployment does not read tool calls; the message says what it lacks.",
    )
    INVALID_API_KEY = Problem(401, "authentication_error", "No API key was sent, or nobody has that key.")
    MODEL_NOT_ALLOWED = Problem(403, "permission_error", "The key is good, but not for this model.")
    MODEL_NOT_FOUND = Problem(404, "not_found_error", "No route or deployment has that name.")
    RESPONSE_NOT_FOUND = Problem(404, "not_found_error", "No response has that id: none is kept.")
    NOT_FOUND = Problem(404, "not_found_error", "No such path.")
    METHOD_NOT_ALLOWED = Problem(405, "invalid_request_error", "The path exists, with another method.")
    REQUEST_TIMEOUT = Problem(408, "timeout_error", "The request did not arrive in time.")
    BODY_TOO_LARGE = Problem(413, "invalid_request_error", "The body is over the limit.")
    UNSUPPORTED_MEDIA_TYPE = Problem(415, "invalid_request_error", "The body must be application/json.")
    UNPROCESSABLE = Problem(422, "invalid_request_error", "Well formed, but it cannot be carried out.")
    HEADERS_TOO_LARGE = Problem(431, "invalid_request_error", "The request's headers are over the limit.")
    INTERNAL_ERROR = Problem(
        500, "server_error", "A fault of the platform; the request id finds it in the trace."
    )
    UPSTREAM_ERROR = Problem(502, "server_error", "The engine failed while it answered.", 1)
    NO_CAPACITY = Problem(503, "server_error", "Every replica is busy or the gateway is full.", 1)
    MODEL_UNAVAILABLE = Problem(503, "server_error", "No replica of the model is ready.", 5)
    SHUTTING_DOWN = Problem(503, "server_error", "This gateway replica is going away.", 1)
    FIRST_TOKEN_TIMEOUT = Problem(504, "timeout_error", "The engine did not begin an answer in time.")
    TOTAL_TIMEOUT = Problem(504, "timeout_error", "The answer took longer than the route allows.")

    @property
    def wire(self) -> str:
        """The string in `error.code`."""
        return self.name.lower()

    def error_object(self, message: str) -> dict[str, dict[str, str | None]]:
        """OpenAI's error object for this code."""
        return {"error": {"message": message, "type": self.value.type, "param": None, "code": self.wire}}
