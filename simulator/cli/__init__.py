"""The command line: parse, call the rooms, print. Heavy imports wait until a command runs.

Data goes to stdout, messages to stderr. Exit 0 done; 2 the input is wrong; 3 the machine lacks
something; 1 our bug, with its traceback; 130 interrupted.
"""

import errno
import sys

import click

from hwmodels.errors import InputError, MachineError, MoesimError, one_line
from simulator.cli.calibrate import calibrate, kernels
from simulator.cli.collective import collective
from simulator.cli.presets import list_presets, show
from simulator.cli.report import report
from simulator.cli.run import compare, plot, reproduce, run, schema
from simulator.cli.study import study
from simulator.cli.validate import validate

__all__ = ["main", "moesim"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="moesim")
def moesim() -> None:
    """Simulate training of MoE models on GPU clusters, and show where every second comes from."""


for _command in (
    run,
    study,
    compare,
    plot,
    report,
    reproduce,
    collective,
    list_presets,
    show,
    schema,
    calibrate,
    kernels,
    validate,
):
    moesim.add_command(_command)


def main() -> None:
    """Run the command line and exit."""
    try:
        status = moesim.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except MoesimError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        is_input = error.errno == errno.ENAMETOOLONG
        code = InputError.exit_code if is_input else MachineError.exit_code
        _fail(f"{where}{(error.strerror or str(error)).lower()}", code)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo(f"moesim: {one_line(message)}", err=True)
    sys.exit(code)
