"""The processes of `parley up`: workers, Envoy, llama.cpp servers."""
