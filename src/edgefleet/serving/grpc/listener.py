"""The listener of gRPC."""

from edgefleet.http2.server import Listener, listen
from edgefleet.serving.bounds import Bounds
from edgefleet.serving.client_quota import ClientQuota
from edgefleet.serving.connection_bounds import within
from edgefleet.serving.grpc.call_inferences import CallInferences
from edgefleet.serving.grpc.service import GrpcService
from edgefleet.serving.limits import GRPC


async def listen_grpc(
    inferences: CallInferences,
    host: str,
    port: int,
    bounds: Bounds | None = None,
    quota: ClientQuota | None = None,
) -> Listener:
    """Serve gRPC without TLS; port 0 is any free port. Raises OperatorError, see ``http2``."""
    bounds = bounds or Bounds()
    service = GrpcService(
        inferences,
        limit_bytes=bounds.body_bytes,
        buffered_bytes=bounds.bodies_bytes,
        quota=quota,
    )
    return await listen(service, host=host, port=port, limits=within(GRPC, bounds))
