"""Make calcc.pyz, the client as one file: `python3 -m calcd.client.bundle calcc.pyz`.

The file runs with Python alone, and `calcd.client` can be imported from it. The same source makes
the same bytes. For that the archive is written here, and `zipapp` only adds the first line: its own
archives hold times, and in Python 3.11 the order of the directory.
"""

import io
import sys
import zipapp
from pathlib import Path
from zipfile import ZipFile, ZipInfo

_CALCD = Path(__file__).parents[1]
_LEFT_OUT = ("client/__main__.py", "client/bundle.py")


def bundle(target: Path) -> None:
    """Write the client to one executable file."""
    sources = [_CALCD / "__init__.py", *sorted((_CALCD / "client").glob("*.py"))]
    archive = io.BytesIO()
    with ZipFile(archive, "w") as files:  # stored: zlib would have to be imported at each start
        main = _CALCD / "client" / "__main__.py"
        files.writestr(ZipInfo("__main__.py"), main.read_bytes())
        for source in sources:
            name = source.relative_to(_CALCD).as_posix()
            if name not in _LEFT_OUT:
                files.writestr(ZipInfo(f"calcd/{name}"), source.read_bytes())
    archive.seek(0)
    with target.open("wb") as file:
        zipapp.create_archive(archive, file, "/usr/bin/env python3")
    target.chmod(target.stat().st_mode | 0o111)


def main() -> None:
    """Write the file that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m calcd.client.bundle FILE")
    bundle(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
