"""Opening and closing."""

from parley.core.ports import Store


class LifeContract:
    """Opening and closing."""

    async def test_check(self, store: Store) -> None:
        """A healthy store says nothing."""
        await store.check()
