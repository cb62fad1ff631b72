"""The reference of bench/grpc_serving.py: the same model behind grpcio's server, four workers.

``python bench/grpc_reference.py MODEL`` prints its port. The service does what it must: read the
message with the client's generated classes, run the model, write the answer.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime
from tritonclient.grpc import service_pb2, service_pb2_grpc

WORKERS = 4


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options)

    def ModelInfer(self, request, context):  # noqa: ARG002, N802 - names of the service
        given = request.inputs[0]
        array = np.frombuffer(request.raw_input_contents[0], np.float32)
        made = self.session.run(None, {given.name: array.reshape(tuple(given.shape))})[0]
        answer = service_pb2.ModelInferResponse(model_name="m", model_version="1", id=request.id)
        output = answer.outputs.add()
        output.name, output.datatype = "scores", "FP32"
        output.shape.extend(made.shape)
        answer.raw_output_contents.append(made.tobytes())
        return answer


def main() -> None:
    options = [("grpc.max_receive_message_length", 16 << 20)]
    server = grpc.server(ThreadPoolExecutor(WORKERS), options=options)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(sys.argv[1]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
