"""`raskrank export`."""

import argparse
import shlex
import sys
from pathlib import Path

from raskrank.checkpoint.registry import DEFAULT_MODEL
from raskrank.cli.shared import form_of
from raskrank.errors import InputError
from raskrank.extras import need_exporter
from raskrank.printable import safe_lines
from raskrank.settings import ENVIRONMENT, default_output, value_for
from raskrank.terminal import Steps, is_terminal, show, to_json


def run(arguments: argparse.Namespace) -> int:
    need_exporter("export")
    from raskrank_export import Thresholds, export

    shown = is_terminal(sys.stderr)
    if not shown:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    asked = {"min_tau": arguments.min_tau, "max_drift": arguments.max_drift}
    model = DEFAULT_MODEL if arguments.model is None else arguments.model
    if arguments.output is None and arguments.trim_vocab:
        raise InputError(
            "OUTPUT is missing: in the cache a trimmed bundle would stand for the whole model; name a folder for it"
        )
    output = default_output(model, arguments.precision) if arguments.output is None else Path(arguments.output)
    report = export(
        model,
        output,
        precision=arguments.precision,
        scheme=arguments.scheme,
        target=arguments.target,
        revision=arguments.revision,
        max_length=arguments.max_length,
        samples=arguments.samples,
        trim_vocab=arguments.trim_vocab,
        trim_form=form_of(arguments),
        accept_license=arguments.accept_license,
        relevant_label=arguments.relevant_label,
        thresholds=Thresholds(**{name: value for name, value in asked.items() if value is not None}),
        overwrite=arguments.overwrite,
        progress=Steps(sys.stderr) if shown else None,
    )
    if arguments.json:
        show(to_json(report.to_dict(), indent=2))
    else:
        show(safe_lines(f"{report}\nuse it with {ENVIRONMENT}={shlex.quote(value_for(model, output))}"))
    return 0
