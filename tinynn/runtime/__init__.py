"""Runs artifacts. Needs numpy and the tables of program.py, nothing of the compiler.

layout: the file format. manifest, check: what a sound manifest is. reader: file -> checked parts.
trust: whose machine code may run. native, host: machine code and machine. golden: stored results.
cpu, opencl: memory, steps and state on a device. runner: what they share; `load` is the entrance.
"""
from tinynn.runtime.layout import ArtifactError, UntrustedArtifact
from tinynn.runtime.runner import Runner, load

__all__ = ["ArtifactError", "Runner", "UntrustedArtifact", "load"]
