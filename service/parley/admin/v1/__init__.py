"""Generated from protos/parley/admin by `make gen`; never edited."""
