"""The daemon: camera frames through a compiled driving model, plans out on the bus.

The way of one frame, a module per step:

    warp                              camera frame -> packed model picture
    contract, queues, model_state     pictures and history -> model inputs -> raw outputs
    parser                            raw outputs -> means, deviations, probabilities
    action, derived, desire_helper    what follows from them
    fill                              all of it -> message fields

`planner` strings them together without sockets or clocks, and `watch` finds what is wrong with
cameras, clocks and calibration. `streams` and `daemon` are the shell that owns sockets and clocks,
`status` shows how it is. `source` is the other end: it publishes frames as a camera would.

Driver monitoring is `driver_state` (pure) and `dmonitoring` (the shell and the command).
"""
