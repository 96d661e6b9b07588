"""A process for tests that is not modeld: says longitudinalPlan to every radarState.

    any_process.py NAMESPACE [--kill-parent FLAG]

accels[0] is the speed that carState had by then. --kill-parent: at the third trigger end the
process that started this one, unless the file FLAG exists; makes FLAG first.
"""

import os
import signal
import sys
from pathlib import Path

from messaging import Bus, PubMaster, SubMaster, new_message


def main() -> None:
    bus = Bus(sys.argv[1])
    flag = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    heard = SubMaster(["carState", "radarState"], poll="radarState", bus=bus, conflate=False)
    count = 0
    with PubMaster(["longitudinalPlan"], bus=bus) as publisher:
        while True:
            heard.update(1000)
            if not heard.updated["radarState"]:
                continue
            count += 1
            if flag is not None and count == 3 and not flag.exists():
                flag.touch()
                os.kill(os.getppid(), signal.SIGKILL)
            plan = new_message("longitudinalPlan", valid=True)
            plan.longitudinalPlan.accels = [heard["carState"].vEgo]
            publisher.send("longitudinalPlan", plan)


if __name__ == "__main__":
    main()
