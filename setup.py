"""Adds what a wheel holds beyond pyproject.toml: the OpenCL launcher, built for both processors."""
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithLauncher(build_py):
    def run(self) -> None:
        super().run()
        sys.path.insert(0, str(ROOT))
        from tinynn.opencl.launcher import build_launchers

        build_launchers(ROOT / "tinynn/runtime" if self.editable_mode
                        else Path(self.build_lib) / "tinynn/runtime")


setup(cmdclass={"build_py": BuildWithLauncher})
