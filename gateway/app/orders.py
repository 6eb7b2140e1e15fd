"""What a worker, a replica below a supervisor, is told by it when it starts."""

import socket

import msgspec

from gateway.config import Config


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """The orders; as JSON on the worker's standard input, whose end is that of the supervisor.

    Attributes:
        worker: Its number, from 1.
        config: The configuration, with the replica's name.
        public: Descriptor of its listening socket on the public port.
        internal: Descriptor of the one that all workers share on the internal port.
        own_path: Where it has to listen for questions about itself, a Unix socket.
        whole_path: Where it asks what is to be said of all workers, a Unix socket.
        relieves: Whether another process still serves these clients. It lets clients in once it can serve
            them, and not before: until then the other one does.
    """

    worker: int
    config: Config
    public: int
    internal: int
    own_path: str
    whole_path: str
    relieves: bool

    def sockets(self) -> tuple[socket.socket, socket.socket, socket.socket]:
        """The listening sockets: the public, the internal, and its own.

        Raises:
            OSError: One of them cannot be used.
        """
        own = socket.socket(socket.AF_UNIX)
        own.bind(self.own_path)
        own.listen()
        sockets = (socket.socket(fileno=self.public), socket.socket(fileno=self.internal), own)
        for each in sockets:
            each.setblocking(False)
        return sockets
