"""Steps that need PyTorch: export, pruning with fine-tuning, distillation.

PyTorch is in no dependency of edgefleet. These steps run in a child process under a Python that
has it (``make torch`` makes one in ``.venv-torch``), which also has edgefleet, onnx, onnxscript
and torch-pruning. ``trainer`` and ``child`` run in the parent and never import torch; ``__main__``
and what it imports run in the child, and import torch inside functions.

The publisher names functions of his own code as ``package.module:function``:

``make_model() -> torch.nn.Module``
    The trained model, with its weights.

``train(model, *, epochs, loss, seed) -> None``
    Trains ``model`` in place for ``epochs`` on the publisher's data. Each batch it calls
    ``loss(inputs, outputs, own)``: the tensor that the model was given (after augmentation), the
    model's output for it, and the publisher's own loss, a scalar tensor. It minimises what that
    returns. Pruning returns ``own``; distillation mixes in the answers of the teacher to the same
    inputs.
"""
