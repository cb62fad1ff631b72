"""Reads the models of a publisher: files, folders and addresses of any kind that is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgefleet.base.ids import file_sha256
from edgefleet.optimize.inputs.conversion import Converter
from edgefleet.optimize.inputs.mlflow_address import is_mlflow_address
from edgefleet.optimize.inputs.mlflow_folder import read_mlflow
from edgefleet.optimize.inputs.mlflow_server import MlflowServer
from edgefleet.optimize.inputs.model_format import format_of
from edgefleet.optimize.inputs.onnx_external import with_weights_inside
from edgefleet.optimize.source import read_source
from edgefleet.optimize.source_model import SourceModel


@dataclass(frozen=True, slots=True)
class ModelReader:
    """Reads models. ``work`` is a folder for what is fetched, and must outlive the sources.

    ``tracking_uri`` is the address of the MLflow server for ``models:/`` and ``runs:/``.
    """

    work: Path
    converter: Converter
    tracking_uri: str = ""

    def read(self, models: Sequence[Path | str | SourceModel]) -> list[SourceModel]:
        """The models as ONNX and TFLite files. One may give both.

        Raises PublisherError: the errors of ``inspect_model``, of the converters and of MLflow;
        DeviceError ``runtime_missing`` without the packages of a converter; NetworkError.
        """
        found: list[SourceModel] = []
        for number, model in enumerate(models):
            work = self.work / str(number)
            work.mkdir()
            if isinstance(model, SourceModel):
                found.append(model)
            elif is_mlflow_address(str(model)):
                found += self._fetched(str(model), work)
            else:
                found += self._local(Path(model), work)
        return found

    def _fetched(self, address: str, work: Path) -> list[SourceModel]:
        folder = work / "mlflow"
        server = MlflowServer(self.tracking_uri)
        try:
            facts = server.fetch(address, folder)
        finally:
            server.close()
        return [
            replace(source, lineage={**source.lineage, **facts})
            for source in self._local(folder, work)
        ]

    def _local(self, path: Path, work: Path) -> list[SourceModel]:
        match kind := format_of(path):
            case "file":
                whole = with_weights_inside(path, work)
                parents = () if whole == path else (file_sha256(path),)
                return [replace(read_source(whole), parents=parents)]
            case "mlflow":
                logged = read_mlflow(path)
                return [
                    replace(
                        source,
                        parents=(logged.parent, *source.parents),
                        lineage={**logged.lineage, **source.lineage},
                    )
                    for source in self._local(logged.path, work)
                ]
            case _:
                return list(self.converter.sources(kind, path))
