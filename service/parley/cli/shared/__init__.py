"""What several commands share: options, checks, the store of a command, and output on a terminal."""
