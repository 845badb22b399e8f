"""Known error bodies: invalid requests, and the fallback rows."""

from parley.backends.errors.kinds import Kind
from parley.backends.errors.known_bodies.rows import Row, by_code, by_pattern

ROWS: tuple[Row, ...] = (
    by_code(
        Kind.REJECTED,
        "OpenAI (platform.openai.com/docs/api-reference)",
        "invalid_value invalid_type missing_required_parameter unknown_parameter integer_below_min_value"
        " integer_above_max_value decimal_below_min_value decimal_above_max_value array_above_max_length"
        " array_below_min_length object_above_max_properties string_below_min_length empty_array"
        " invalid_function_parameters invalid_schema duplicate_value",
        frozenset({400, 413, 422}),
    ),
    by_code(
        Kind.REJECTED,
        "OpenAI, OpenRouter: an image in the request",
        "invalid_image invalid_image_url invalid_image_format image_parse_error image_too_large image_too_small"
        " unsupported_image_format image_not_found image_download_failed invalid_base64_image",
        frozenset({400, 404, 413, 415, 422}),
    ),
)

FALLBACK_ROWS: tuple[Row, ...] = (
    by_pattern(
        Kind.MISCONFIGURED,
        "any rejection that mentions the operator's key, account or plan",
        r"\bapi[-_ ]?keys?\b|\bcredentials?\b|\bsubscription\b|\bbilling\b|\bpayment\b|\borgani[sz]ation\b|\btenant\b"
        r"|\byour (?:account|plan|project|workspace|team|quota|tier)\b|\blicen[cs]e\b|\bunauthori[sz]ed\b"
        r"|\bauthenticat(?:ion|e)\b",
        "Your team does not have this feature",
        frozenset({400, 409, 422}),
    ),
)
"""Rows tried if a rejection names no field of the request."""
