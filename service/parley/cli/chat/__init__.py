"""`parley chat`: a conversation with a model in the terminal, or through pipes, over gRPC."""
