"""Generated from protos/parley/guard by `make gen`; never edited."""
