"""What setup.cfg cannot say: a build begins with an empty directory."""

import shutil

from setuptools import setup
from setuptools.command.build import build


class CleanBuild(build):
    """Build without what an earlier build has left.

    pip builds in the source tree and takes all that build/lib holds. A module that was removed
    or renamed since the last build would be installed again.
    """

    def run(self) -> None:
        """Remove the build directory of the package, then build."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(cmdclass={"build": CleanBuild})
