"""Options that many commands have."""

import argparse

BUS_HELP = (
    "where: a namespace, tcp://HOST (services have fixed ports; tcp://* binds to all addresses), "
    "msgq or msgq:PREFIX (openpilot's own bus); default: $TINYDRIVE_NAMESPACE, else 'default'"
)


def add_bus_option(parser: argparse.ArgumentParser, help_text: str = BUS_HELP) -> None:
    """--bus; --namespace is its older name."""
    parser.add_argument("--bus", "--namespace", dest="bus", metavar="BUS", help=help_text)


def positive(text: str) -> int:
    """For options that count something."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)
