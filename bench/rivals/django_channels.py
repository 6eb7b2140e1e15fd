"""Django Channels on Daphne with the in-memory channel layer: ``group_send`` of each POST's body.

python django_channels.py PORT
"""

import sys

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from daphne.cli import CommandLineInterface
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

GROUP = "room"


class Client(AsyncWebsocketConsumer):  # type: ignore[misc] # it is installed for the benchmark alone
    """One client, in the group with all others."""

    async def connect(self) -> None:
        """Take it in."""
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Let it go."""
        del code
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def told(self, event: dict[str, str]) -> None:
        """Send what the group was sent."""
        await self.send(text_data=event["text"])


async def publish(request: HttpRequest) -> HttpResponse:
    """Send the body to the group."""
    message = {"type": "told", "text": request.body.decode()}
    await get_channel_layer().group_send(GROUP, message)
    return HttpResponse(status=204)


async def ready(_request: HttpRequest) -> HttpResponse:
    """Say that it serves."""
    return HttpResponse(status=204)


urlpatterns = [path("readyz", ready), path("", publish)]
application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("", Client.as_asgi())])}
)

if __name__ == "__main__":
    sys.argv[1:] = [
        "-v0",
        "-e",
        f"tcp:port={sys.argv[1]}:interface=127.0.0.1:backlog=4096",
        f"{__name__}:application",
    ]
    CommandLineInterface.entrypoint()
