"""Makes the API document: OpenAPI 3.1 from the descriptor of the protos, their comments and their HTTP annotations.

`make gen` writes it to `edge/openapi.json`, where the edge serves it from.
"""
