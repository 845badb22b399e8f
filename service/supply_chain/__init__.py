"""Tools for what Parley is built from: advisories of the locked packages, and the bill of materials."""
