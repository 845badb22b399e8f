"""Lets the model call a function, until it answers."""

import os

from parley_client import Client


def get_weather(city: str) -> dict:
    """Returns the weather of a city."""
    return {"city": city, "celsius": 21}


with Client("127.0.0.1:50051", key=os.environ["KEY"]) as client:
    print(client.chat.run("How warm is Paris?", [get_weather], model="support").text)
