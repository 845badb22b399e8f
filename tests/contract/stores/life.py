"""Contract of opening and closing."""

from parley.core.ports import Store


class LifeContract:
    """Contract of opening and closing."""

    async def test_check(self, store: Store) -> None:
        """The check of a healthy store succeeds."""
        await store.check()
