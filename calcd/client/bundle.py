"""Make calcc.pyz, the client as one file: `python3 -m calcd.client.bundle calcc.pyz`.

The file runs with Python alone, and `calcd.client` can be imported from it. The same source makes
the same bytes: `zipapp` gets an archive without times, and only adds the first line.
"""

import io
import sys
import zipapp
from pathlib import Path
from zipfile import ZipFile, ZipInfo

CLIENT = Path(__file__).parent


def bundle(target: Path) -> None:
    """Write the client to one executable file."""
    sources = {path.name: path for path in sorted(CLIENT.glob("*.py"))}
    del sources["bundle.py"]
    main = sources.pop("__main__.py")
    files = {f"calcd/client/{name}": path for name, path in sources.items()}
    files |= {"__main__.py": main, "calcd/__init__.py": CLIENT.parent / "__init__.py"}
    archive = io.BytesIO()
    with ZipFile(archive, "w") as members:  # stored: zlib would have to be imported at each start
        for name, path in files.items():
            members.writestr(ZipInfo(name), path.read_bytes())
    archive.seek(0)
    zipapp.create_archive(archive, target, "/usr/bin/env python3")
    target.chmod(target.stat().st_mode | 0o111)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m calcd.client.bundle FILE")
    bundle(Path(sys.argv[1]))
