"""The listener of gRPC."""

from edgefleet.http2.server import Listener, listen
from edgefleet.serving.grpc.service import GrpcService
from edgefleet.serving.inference import Inferences
from edgefleet.serving.limits import GRPC, INFERENCE


async def listen_grpc(inferences: Inferences, host: str, port: int) -> Listener:
    """Serve gRPC without TLS; port 0 is any free port. Raises OperatorError, see ``http2``."""
    service = GrpcService(
        inferences, limit_bytes=INFERENCE.body_bytes, buffered_bytes=INFERENCE.buffered_bytes
    )
    return await listen(service, host=host, port=port, limits=GRPC)
