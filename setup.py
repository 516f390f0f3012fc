"""Packages and folders, and what an editable install adds for type checkers; everything else is in pyproject.toml.

``kernels/`` and ``recipes/`` are top-level folders of the repository and are installed as ``donod_fast.kernels`` and
``donod_fast.recipes``. pyproject.toml cannot search for packages below a mapped folder, so setup.py does.
"""

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

FOLDERS = {"donod_fast": "donod_fast", "donod_fast.kernels": "kernels", "donod_fast.recipes": "recipes"}
ROOT = Path(__file__).resolve().parent
LINKS = ROOT / "build" / "editable"
"""Folder with the package ``donod_fast`` as it is installed, in links to the repository's files."""
FINDS_NOTHING = "type('FindsNothing', (), {'find_spec': lambda self, name, target=None: None})()"
"""What Python's import asks for the modules of the folder of links."""


def packages() -> list[str]:
    """Names of all packages below the mapped folders."""
    names = list(FOLDERS)
    for root, folder in FOLDERS.items():
        names += [f"{root}.{name}" for name in find_packages(folder)]
    return names


class EditableWithTypes(editable_wheel):
    """An editable install whose types are found by mypy and pyright.

    setuptools installs a hook that finds the mapped folders when they are imported. Type checkers import nothing: they
    look into the folders on the path. So a second ``.pth`` file puts a folder of links on the path. Python itself is
    told to find nothing there: modules keep the paths of the repository in tracebacks, debuggers and coverage.
    """

    def run(self) -> None:
        """Build the wheel as setuptools does, and add the file to it."""
        super().run()
        try:
            link_folders()
        except OSError as error:  # a file system without links; nothing but the types is missing
            self.warn(f"type checkers will not find the types of donod_fast: {error}")
            return
        path = str(LINKS)
        lines = f"{path}\nimport sys; sys.path_importer_cache[{path!r}] = {FINDS_NOTHING}\n"
        for wheel in Path(self.dist_dir).glob("donod_fast-*.whl"):
            add_to_wheel(wheel, "donod_fast_types.pth", lines.encode())


def link_folders() -> None:
    """Make the folder of links; a link to a room shows files that come later."""
    package = LINKS / "donod_fast"
    shutil.rmtree(LINKS, ignore_errors=True)
    package.mkdir(parents=True)
    places = [path for path in (ROOT / "donod_fast").iterdir() if path.name != "__pycache__"]
    for place in [*places, *(ROOT / folder for name, folder in FOLDERS.items() if name != "donod_fast")]:
        (package / place.name).symlink_to(place, target_is_directory=place.is_dir())


def add_to_wheel(wheel: Path, name: str, content: bytes) -> None:
    """Add a file to a wheel, and to the list of its files."""
    with zipfile.ZipFile(wheel) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    record = next(file for file in files if file.endswith(".dist-info/RECORD"))
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    files[record] = f"{name},sha256={digest},{len(content)}\n".encode() + files[record]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in {name: content, **files}.items():
            archive.writestr(file, data)


setup(packages=packages(), package_dir=FOLDERS, cmdclass={"editable_wheel": EditableWithTypes})
