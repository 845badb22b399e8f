"""The security probe: floods of strangers against a real Parley, while good calls are measured."""
