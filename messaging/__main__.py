"""The `bus` command: look at messages, record them, play them, take them to another host."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from messaging import tools
from messaging.bus import Bus
from messaging.errors import MessagingError
from messaging.logfile import LogWriter
from messaging.options import BUS_HELP, add_bus_option, positive
from messaging.segments import SegmentWriter
from messaging.services import SERVICES

_SERVICES_HELP = "names, old ones too, or patterns such as '*CameraState'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the tools until it is done, SIGINT or SIGTERM. Gives 0, or 1 after an error."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="bus: %(message)s", level=logging.INFO, stream=sys.stderr)
    stop = tools.Stop(getattr(arguments, "seconds", None))
    stop.on_signals()
    try:
        arguments.run(arguments, stop)
    except MessagingError as error:
        print(f"bus: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, say `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bus", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    echo = commands.add_parser("echo", help="print messages")
    echo.add_argument("services", nargs="+", metavar="SERVICE", help=_SERVICES_HELP)
    echo.add_argument("--count", type=positive, metavar="N", help="stop after N messages")
    echo.add_argument("--json", action="store_true", help="one line of JSON per message")
    _add_common(echo, _echo)

    rates = commands.add_parser("hz", help="show how often messages come")
    rates.add_argument("services", nargs="*", metavar="SERVICE", help=_SERVICES_HELP)
    rates.add_argument("--interval", type=float, default=1.0, metavar="S", help="between tables")
    _add_common(rates, _hz)

    record = commands.add_parser("record", help="write messages to a log")
    record.add_argument("services", nargs="*", metavar="SERVICE",
                        help=_SERVICES_HELP + "; default: all that are meant for the log")
    record.add_argument("-o", "--output", required=True, type=Path, metavar="PATH",
                        help="file (.zst and .bz2 are compressed), or with --segments a folder")
    record.add_argument("--segments", action="store_true",
                        help="write segments of a minute with rlog and qlog into the folder")
    _add_common(record, _record)

    play = commands.add_parser("play", help="send the messages of a log at its own pace")
    play.add_argument("log", nargs="+", help="file, folder, route (FOLDER/ROUTE)")
    play.add_argument("--speed", type=float, default=1.0, metavar="X",
                      help="2 is twice as fast, inf as fast as it goes (default: 1)")
    play.add_argument("--start", type=float, default=0.0, metavar="S",
                      help="leave out the first S seconds")
    play.add_argument("--allow", type=_names, default=[], metavar="A,B", help="only these services")
    play.add_argument("--block", type=_names, default=[], metavar="A,B", help="not these services")
    play.add_argument("--all", action="store_true",
                      help=f"also {', '.join(sorted(tools.NOT_PLAYED))}")
    play.add_argument("--qlog", action="store_true", help="the decimated logs of a folder")
    play.add_argument("--wait", type=float, default=0.0, metavar="S",
                      help="wait for the first subscriber, at most S seconds")
    _add_common(play, _play)

    bridge = commands.add_parser("bridge", help="forward messages from one bus to another")
    bridge.add_argument("services", nargs="+", metavar="WHITELIST", help=_SERVICES_HELP)
    bridge.add_argument("--from", dest="origin", required=True, metavar="BUS", help=BUS_HELP)
    bridge.add_argument("--to", dest="target", required=True, metavar="BUS", help="likewise")
    bridge.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds")
    bridge.set_defaults(run=_bridge)
    return parser


def _add_common(parser: argparse.ArgumentParser, run: object) -> None:
    add_bus_option(parser)
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds")
    parser.set_defaults(run=run)


def _names(text: str) -> list[str]:
    return [name for name in text.replace(",", " ").split() if name]


def _echo(arguments: argparse.Namespace, stop: tools.Stop) -> None:
    services = tools.select_services(arguments.services)
    tools.echo(
        services, Bus.at(arguments.bus), stop, count=arguments.count, as_json=arguments.json
    )


def _hz(arguments: argparse.Namespace, stop: tools.Stop) -> None:
    services = tools.select_services(arguments.services)
    tools.measure_rates(services, Bus.at(arguments.bus), stop, interval_s=arguments.interval)


def _record(arguments: argparse.Namespace, stop: tools.Stop) -> None:
    logged = [name for name, service in SERVICES.items() if service.should_log]
    services = tools.select_services(arguments.services) if arguments.services else logged
    bus = Bus.at(arguments.bus)
    writer: LogWriter | SegmentWriter
    if arguments.segments:
        log_id = time.strftime("%Y-%m-%d--%H-%M-%S")  # as routes were named by their date
        writer = SegmentWriter(arguments.output, log_id)
    else:
        writer = LogWriter(arguments.output)

    def started() -> None:
        print(f"bus: recording {len(services)} services to {arguments.output}; Ctrl-C ends it",
              file=sys.stderr)

    try:
        result = tools.record(services, bus, stop, writer, started=started)
    finally:
        if isinstance(writer, SegmentWriter):
            writer.close(stop.signal)
        else:
            writer.close()
    dropped = f", {result.malformed} malformed ones left out" if result.malformed else ""
    print(f"bus: wrote {result.messages} messages{dropped}", file=sys.stderr)


def _play(arguments: argparse.Namespace, stop: tools.Stop) -> None:
    members = tools.played_members(arguments.allow, arguments.block, arguments.all)
    sent = tools.play(
        arguments.log,
        Bus.at(arguments.bus),
        stop,
        members=members,
        speed=arguments.speed,
        start_s=arguments.start,
        wait_s=arguments.wait,
        kind="qlog" if arguments.qlog else "rlog",
    )
    print(f"bus: sent {sent} messages", file=sys.stderr)


def _bridge(arguments: argparse.Namespace, stop: tools.Stop) -> None:
    services = tools.select_services(arguments.services)
    origin, target = Bus.at(arguments.origin), Bus.at(arguments.target)

    def started() -> None:
        print(f"bus: forwarding {', '.join(services)}; Ctrl-C ends it", file=sys.stderr)

    forwarded = tools.bridge(services, origin, target, stop, started=started)
    print(f"bus: forwarded {sum(forwarded.values())} messages", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
