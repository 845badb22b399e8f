"""Generates the API document (OpenAPI 3.1) from the protos, and the Lua tables of the edge.

`make gen` writes them to edge/openapi.json, which the edge serves, and to edge/lua/.
"""
