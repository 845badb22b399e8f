"""The site at `/docs/`: the pages of docs/ with navigation and search, and the references of the REST and gRPC API.

`python -m docs.site OUTPUT` builds it with Zensical, without the network. Envoy serves the result
(supervisor/edge_site.py).
"""
