"""run_batch(...): find the work, hand it to an engine, count what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from petseg.batch import running
from petseg.batch.books import open_books
from petseg.batch.report import Report
from petseg.batch.running import Progress, Say
from petseg.errors import PetsegError
from petseg.formats import catalog
from petseg.masks.record import Maker
from petseg.pages import tables
from petseg.pages.survey import Survey
from petseg.photos import transforms
from petseg.photos.addresses import is_address
from petseg.planning.config import BatchConfig, check_folders, find_model, read_signature
from petseg.planning.gone import find_gone
from petseg.planning.plan import Plan, Rules, make_plan
from petseg.remote.archives import photos_here
from petseg.remote.here import Site
from petseg.remote.site import opened
from petseg.remote.stage import Stage
from petseg.runtime import NoSession, Session
from petseg.steps import Job
from petseg.system import machine
from petseg.system.temporary import temporary_folder


def run_batch(config: BatchConfig, say: Say, progress: Progress | None = None) -> Report:
    """Turn photos into masks.

    Args:
        config: what to do.
        say: takes lines for people while the run goes on.
        progress: shows how far it is.

    Returns:
        The report, which has been written to `masks/petseg/stats.json`, too.

    Raises:
        PetsegError: nothing can be done, or the run cannot go on.
    """
    with opened(config, say) as site:
        return _run(site, config.to_json(), lambda line: say(site.shown(line)), progress)


def _run(site: Site, options: dict[str, Any], say: Say, progress: Progress | None) -> Report:
    config = site.config
    report = Report(options=options, notes=site.notes)
    check_folders(config)
    catalog.check_packages(config.formats)
    path, where = find_model(config.model, config.precision)
    say(f"model: {path} ({where})")
    model = read_signature(path)
    report.classes = model.classes
    maker = Maker(model.graph_hash, transforms.TRANSFORM, config.size, config.names)
    rules = Rules(
        folder=config.folder,
        maker=maker,
        formats=config.extras,
        redo=config.redo,
        overwrite=config.overwrite,
        verify=config.verify,
        images=options["list_file"] or options["images"],
        max_pixels=config.max_pixels,
        pattern=site.pattern,
        shelf=site.shelf,
        shard=config.shard,
    )
    plan = make_plan(site.find(), rules)
    _count_plan(report, plan)
    first, *more = plan.summary()
    for line in (f"{'' if config.shard is None else f'shard {config.shard}: '}{first}", *more):
        say(line)
    if plan.skipped and site.loose:
        say(
            f"--shards packs masks as they are made: of the {plan.skipped} skipped, {site.loose} "
            f"are single files and stay so; --redo makes petseg's own anew, and packs them"
        )
    for name, problem in plan.failed:
        say(f"failed: {name}: {problem}")
    if config.fail_fast and plan.failed:
        report.stopped = "--fail-fast"
    if config.dry_run:
        return report
    # Whatever can be refused is refused before anything is written.
    todo = plan.todo if config.limit is None else plan.todo[: config.limit]
    session: Session = NoSession(model)
    if report.stopped is None and not all(work.derive for work in todo):
        if config.engine == "local":
            session = running.load(config, path, model, todo, report, say)
        device = machine.device_name(session.provider, config.devices)
        report.describe(session, site.shown(str(path)), device)
    # What tells of all masks is made when all shards have ended.
    survey = Survey(model.classes) if config.report and config.shard is None else None
    with temporary_folder(config.reserved) as temporary:
        with running.signals(report), open_books(config, report, temporary) as books:
            books.take_over(plan)
            if todo and report.stopped is None:
                job = _job(config, session, maker, temporary, site.staged)
                running.work(site, todo, session, path, job, books, say, progress)
            if report.precision == "int8" and model.accuracy_cost is not None:
                report.notes.append(f"int8: {model.accuracy_cost}")
            if report.stopped is None:
                report.notes += tables.rebuild(
                    config.folder,
                    temporary,
                    model.classes,
                    config.tables,
                    config.review_below,
                    survey,
                    plan.photos,
                    books.seconds,
                    config.max_pixels,
                    lambda: books.stopping,
                )
            if report.stopped is None and _does_all(site):
                photos = Path(config.images)
                gone = find_gone(config.folder, photos, plan, lambda: books.stopping)
                books.list_gone(gone)
            if report.stopped is not None and (config.tables or config.review_below is not None):
                report.notes.append("tables and lists of all masks are made when a run ends well")
        if survey is not None and report.stopped is None:
            _write_page(config, survey, report, temporary, say)
    counts = report.counts
    for count, file in (
        (counts.failed, "failures.csv"),
        (counts.kept, "kept.csv"),
        (report.gone, "gone.csv"),
    ):
        if count:
            say(f"{count} {file.removesuffix('.csv')}: see {config.beside(file)}")
    if config.shard is not None:
        copied = ", of a copy of them on this machine" if is_address(options["masks"]) else ""
        say(f"the whole, when all shards have ended: petseg report {config.masks}{copied}")
    return report


def _does_all(site: Site) -> bool:
    """Whether a run is of all photos in a folder of this machine, and its masks lie here, too."""
    config = site.config
    return (
        site.shelf is None
        and site.pattern != ""
        and Path(config.images).is_dir()
        and config.list_file is None
        and config.shard is None
        and config.shards is None
        and config.limit is None
    )


def _write_page(
    config: BatchConfig, survey: Survey, report: Report, temporary: Path, say: Say
) -> None:
    # Late: it brings matplotlib, which the run itself has no use for.
    from petseg.pages import masks as page
    from petseg.pages.run import understand

    path = config.reserved / page.NAME
    run = understand(report.as_dict())
    failures = page.failures_of(config.folder, run)
    try:
        photos = photos_here(config.images)
        page.write(path, survey, config.folder, photos, run, failures, temporary)
    except OSError as error:
        raise PetsegError(
            f"cannot write {error.filename or path}: {error.strerror}; the masks are in place"
        ) from error
    say(f"report: {path}")


def _job(
    config: BatchConfig, session: Session, maker: Maker, temporary: Path, staged: Stage | None
) -> Job:
    return Job(
        masks=config.folder if staged is None else staged.masks,
        # On the masks' own file system.
        temporary=temporary if staged is None else staged.folder,
        model_size=session.signature.size,
        classes=session.signature.classes,
        maker=maker,
        provider=session.provider,
        precision=session.precision,
        formats=config.extras,
        max_pixels=config.max_pixels,
        replace_any=config.overwrite,
    )


def _count_plan(report: Report, plan: Plan) -> None:
    counts = report.counts
    counts.files, counts.ignored, counts.skipped = plan.files, plan.ignored, plan.skipped
    counts.kept, counts.failed = len(plan.kept), len(plan.failed)
