"""The Helm chart of edge/kubernetes: rendered, checked, and compared with the commands that it runs."""
