"""``edgefleet hub``: the state of the hub itself."""

from pathlib import Path

import click

from edgefleet.base.texts import counted, utc_text
from edgefleet.cli.command import data_dir_option, verb
from edgefleet.cli.connect import data_dir, reach
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person_options import person_options
from edgefleet.cli.values import size
from edgefleet.protocol.collection import Collect
from edgefleet.protocol.restored import AcceptRestored


@verb("login", examples=("edgefleet hub login", "edgefleet hub login --json"))
@pass_invocation
def login(invocation: Invocation) -> None:
    """Print a link that opens the page, for one use within 15 minutes.

    The page then has the same user and the same role as the token of this command. The link
    contains no token.
    """
    from edgefleet.protocol.people import LoginLink

    with reach(invocation) as hub:
        made = hub.people.login_link()
    link = LoginLink(path=hub.page_url(made.path), expires_at=made.expires_at)
    invocation.screen.answer(link, [link.path])


@verb(
    "accept-restored",
    examples=(
        "edgefleet hub accept-restored",
        "edgefleet hub accept-restored --note 'backup of Monday' --json",
    ),
)
@person_options
@pass_invocation
def accept_restored(invocation: Invocation, person: str, note: str) -> None:
    """Accept the state of a hub that was restored from an older copy.

    Until then, nothing is offered to devices that run what the hub has no record of. From then on,
    they are offered what the rollouts of the hub give them, which may be an older release. A device
    that runs the release of a rollout of the hub is recorded as confirmed there. A device that the
    hub does not know, and whose credential it made, enrols again by itself.

    See the devices first: `edgefleet device list --ahead`. To keep what they run, publish the
    release again and roll it out to them before.
    """
    with reach(invocation) as hub:
        accepted = hub.accept_restored(AcceptRestored(person=person, note=note))
    lines = [f"Accepted. Devices that were ahead of the hub: {accepted.devices}."]
    if accepted.unknown:
        lines.append(f"Devices that may enrol again: {', '.join(accepted.unknown[:10])}.")
    invocation.screen.answer(accepted, lines)


@verb("gc", examples=("edgefleet hub gc --dry-run", "edgefleet hub gc --json"))
@click.option("--dry-run", is_flag=True, help="Count the artifacts, and remove none.")
@pass_invocation
def gc(invocation: Invocation, *, dry_run: bool) -> None:
    """Remove the artifacts that no release needs. The hub does so every hour by itself.

    An artifact of a published release is never removed, whether or not a device runs the release.
    Another one is kept for a day after its upload, and for an hour if the disk has less than a
    tenth free.
    """
    with reach(invocation) as hub:
        found = hub.collect(Collect(dry_run=dry_run))
    word = "Would be removed" if dry_run else "Removed"
    lines = [
        f"{word}: {counted(found.removed, 'artifact')}, {size(found.removed_bytes)}.",
        f"Kept: {counted(found.kept, 'artifact')}, {size(found.kept_bytes)}.",
    ]
    if found.postponed:
        lines.append(f"Nothing may be removed now: {found.postponed}")
    invocation.screen.answer(found, lines)


@verb(
    "backup",
    hub=False,
    exits=(Exit.FAILED,),
    examples=(
        "edgefleet hub backup /mnt/backups",
        "edgefleet hub backup /mnt/backups --data-dir ./hub --keep 14 --json",
    ),
)
@click.argument("folder", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--keep",
    type=click.IntRange(1),
    metavar="N",
    help="Keep the newest N backups in FOLDER and remove older ones. Default: keep all.",
)
@pass_invocation
def backup(invocation: Invocation, folder: Path, keep: int | None) -> Exit:
    """Back up the data folder of a hub on this machine, also while the hub runs.

    A backup has the database, the secrets and the artifacts of all releases. The artifacts in
    FOLDER are shared by its backups, so a further backup copies only the new ones. The secrets are
    not encrypted: a person who can read FOLDER can act as the hub.

    Exit code 1 if an artifact of the data folder is missing or damaged; all else is in the backup.
    """
    from edgefleet.base.clock import SystemClock
    from edgefleet.hub.backup.make import make_backup

    made = make_backup(
        data_dir(invocation),
        folder,
        now=SystemClock().now(),
        keep=keep,
        note=invocation.screen.note,
    )
    record = made.record
    content = _content(record.devices, record.releases, len(record.artifacts))
    lines = [f"{made.backup}: {content}. {size(made.copied_bytes)} copied."]
    lines += [f"Removed: {old}" for old in made.removed]
    lines += [f"Missing or damaged in the data folder: artifact {one}" for one in made.harmed]
    invocation.screen.answer(made, lines)
    return Exit.FAILED if made.harmed else Exit.DONE


@verb(
    "verify",
    hub=False,
    exits=(Exit.FAILED,),
    examples=("edgefleet hub verify", "edgefleet hub verify /mnt/backups --json"),
)
@click.argument(
    "folder",
    metavar="[BACKUP]",
    required=False,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@pass_invocation
def verify(invocation: Invocation, folder: Path | None) -> Exit:
    """Read every byte of a backup, or of the data folder, and name what is missing or damaged.

    BACKUP is a backup, or a folder of backups: then its newest one is verified. Without it, the
    data folder of the hub on this machine is verified, also while the hub runs: its secrets, its
    database, the signatures of its releases, and their artifacts.
    """
    from edgefleet.hub.backup.record import newest_backup
    from edgefleet.hub.backup.verify import verify_backup, verify_data_dir

    note = invocation.screen.note
    if folder is None:
        found = verify_data_dir(data_dir(invocation), note)
    else:
        found = verify_backup(newest_backup(folder), note)
    content = _content(found.devices, found.releases, found.artifacts)
    invocation.screen.answer(found, found.faults or [f"{found.place} is whole: {content}."])
    return Exit.FAILED if found.faults else Exit.DONE


@verb(
    "restore",
    hub=False,
    exits=(Exit.FAILED,),
    examples=(
        "edgefleet hub restore /mnt/backups --data-dir ./hub",
        "edgefleet hub restore /mnt/backups/2026-11-30T12-00-00.000Z --data-dir ./hub --replace",
    ),
)
@click.argument(
    "folder", metavar="BACKUP", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--replace",
    is_flag=True,
    help="Move the files of the hub that is in the data folder into a folder there.",
)
@pass_invocation
def restore(invocation: Invocation, folder: Path, replace: bool) -> None:
    """Restore a backup into the data folder. The hub must not be running.

    BACKUP is a backup, or a folder of backups: then its newest one is restored. It is verified
    first. A restore that is interrupted leaves a folder with which no hub starts; run it again
    with --replace.

    The restored hub is older than its devices: see `edgefleet hub accept-restored`.
    """
    from edgefleet.base.clock import SystemClock
    from edgefleet.hub.backup.restore import restore_backup

    restored = restore_backup(
        folder,
        data_dir(invocation),
        now=SystemClock().now(),
        replace=replace,
        note=invocation.screen.note,
    )
    record = restored.record
    content = _content(record.devices, record.releases, len(record.artifacts))
    lines = [f"{restored.data_dir} is the hub of {utc_text(record.made_at)}: {content}."]
    if restored.aside:
        lines.append(f"The files of the hub before are in {restored.aside}.")
    option = "" if invocation.data_dir is None else f" --data-dir {invocation.data_dir}"
    lines += [
        f"Start it:  edgefleet serve{option}",
        f"Then see which devices are ahead of it:  edgefleet device list --ahead{option}",
    ]
    invocation.screen.answer(restored, lines)


def _content(devices: int, releases: int, artifacts: int) -> str:
    numbers = {"device": devices, "release": releases, "artifact": artifacts}
    return ", ".join(counted(number, noun) for noun, number in numbers.items())


for _command in (backup, verify, restore):
    _command.params.insert(0, data_dir_option())
