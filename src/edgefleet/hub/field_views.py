"""The fleet's figures of a model beside those of the bench, which the lineage of a release has."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from edgefleet.base.errors import EdgefleetError
from edgefleet.hub.blobs import Blobs
from edgefleet.hub.field_figures import FieldFigures
from edgefleet.hub.registry import Registry
from edgefleet.protocol.field_figures import (
    BenchFigures,
    FieldProfile,
    FieldVariant,
    ModelField,
    bench_figures,
    faster_text,
    fastest_beside,
    findings,
    has_recipe_of,
    recipe_name,
)
from edgefleet.protocol.lineage import read_lineage
from edgefleet.protocol.release import ReleaseManifest

_LINEAGES: Final = 256  # read ones that are kept
_LINEAGE_BYTES: Final = (
    256 << 10
)  # of one that is read here, at once: those of `optimize` have 10 KB

Made = Mapping[str, tuple[str, BenchFigures | None]]
"""The recipe's name and the bench's figures, by profile."""


class FieldViews:
    """Joins the figures of the fleet with the lineage of releases."""

    def __init__(self, figures: FieldFigures, registry: Registry, blobs: Blobs) -> None:
        self._figures = figures
        self._registry = registry
        self._blobs = blobs
        self._made: OrderedDict[str, Made] = OrderedDict()

    def model(self, model: str) -> ModelField:
        """The figures of a model by hardware class. Its releases must be known."""
        newest_first = list(reversed(tuple(self._registry.models()[model])))
        found: dict[str, list[FieldVariant]] = {}
        for release, profile, record in self._figures.of(model):
            if not self._registry.knows(model, release):  # the hub was restored from an older copy
                continue
            name, bench = self._variant(self._registry.release(model, release).manifest, profile)
            found.setdefault(profile, []).append(record.variant(release, name, bench))
        profiles: list[FieldProfile] = []
        for profile, variants in sorted(found.items()):
            variants.sort(key=lambda one: newest_first.index(one.release))
            profiles.append(
                FieldProfile(
                    profile=profile,
                    variants=tuple(variants),
                    findings=findings(profile, variants),
                )
            )
        return ModelField(model=model, since=self._figures.since, profiles=tuple(profiles))

    def warnings(self, manifest: ReleaseManifest) -> tuple[str, ...]:
        """Where another recipe was faster in the field than the one of a release, as sentences."""
        measured = {one.profile: one.variants for one in self.model(manifest.model).profiles}
        found: list[str] = []
        for profile in (one.profile for one in manifest.variants):
            name, bench = self._variant(manifest, profile)
            planned = FieldVariant(
                release=manifest.release, name=name, requests=0, devices=0, latency_us_p50=None,
                latency_us_p10=None, cpu_us=None, memory_mib=0, bench=bench,
            )  # fmt: skip
            variants = measured.get(profile, ())
            slow = next((v for v in variants if v.is_enough and has_recipe_of(v, planned)), None)
            if slow is not None and (fast := fastest_beside(slow, variants)) is not None:
                uses = (
                    "" if slow.release == manifest.release
                    else f"Release {manifest.release} has the recipe of release {slow.release}. "
                )  # fmt: skip
                found.append(f"{uses}{faster_text(profile, fast, slow)}")
        return tuple(found)

    def _variant(self, manifest: ReleaseManifest, profile: str) -> tuple[str, BenchFigures | None]:
        made = self._lineage(manifest).get(profile)
        if made is not None:
            return made
        variant = next((one for one in manifest.variants if one.profile == profile), None)
        return f"{variant.runtime} {variant.precision}" if variant else "unknown", None

    def _lineage(self, manifest: ReleaseManifest) -> Made:
        """Recipe and bench by profile, from the lineage. Empty if none can be read."""
        artifact = manifest.lineage
        if artifact is None or artifact.size_bytes > _LINEAGE_BYTES:
            return {}
        known = self._made.get(artifact.sha256)
        if known is None:
            known = self._made[artifact.sha256] = self._read(artifact.sha256)
            if len(self._made) > _LINEAGES:
                self._made.popitem(last=False)
        return known

    def _read(self, sha256: str) -> Made:
        try:
            predicate = read_lineage(self._blobs.path(sha256).read_bytes()).predicate
        except (EdgefleetError, OSError):
            return {}
        names = predicate.build_definition.internal_parameters.get("recipes")
        known = names if isinstance(names, Mapping) else {}
        return {
            one.profile: (
                str(known.get(one.profile) or recipe_name(one.recipe)),
                bench_figures(one.recipe, one.judgement),
            )
            for one in predicate.edgefleet_evaluation
        }
