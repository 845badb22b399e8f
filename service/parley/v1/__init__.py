"""Generated from protos/parley/v1 by `make gen`; never edited."""
