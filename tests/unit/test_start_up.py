"""What each process imports before it is of use; a module more is time that every program waits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dispy

ROOT = str(Path(dispy.__file__).parent.parent)
# What packs a computation and its files: a local node starts while the client imports it.
PACKING = {
    "cloudpickle", "dispy.client.computation", "dispy.client.files", "dispy.client.opening",
    "dispy.shipping.byvalue", "dispy.shipping.code", "dispy.shipping.files",
    "dispy.shipping.modules",
}  # fmt: skip
# What only some programs or some jobs need, and the largest of the standard library.
RARE = {
    "OpenSSL", "asyncio", "concurrent.futures", "dispy.shipping.source", "email", "hashlib",
    "hmac", "importlib.metadata", "json", "multiprocessing", "numpy", "psutil", "secrets",
    "sqlite3", "ssl", "tomllib", "unittest", "zipfile",
}  # fmt: skip
HUB = {"gevent", "dispy.scheduler.service", "dispy.client.discovery"}


def imported(code: str) -> set[str]:
    """Return the modules of a process that has run some code; none are those of `site`."""
    ran = subprocess.run(
        [sys.executable, "-S", "-c", f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([ROOT, *sys.path])},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


def test_import_dispy_alone_loads_none_of_its_rooms() -> None:
    assert {name for name in imported("import dispy") if name.startswith("dispy.")} == set()


def test_a_client_imports_only_what_starts_a_local_node() -> None:
    late = PACKING | RARE | HUB | {"pathlib", "shutil", "tempfile", "msgpack.fallback"}
    assert imported("from dispy import JobCluster") & late == set()


@pytest.mark.parametrize("role", ["node", "worker"])
def test_a_node_and_a_worker_start_without_what_few_of_them_need(role: str) -> None:
    starts = {
        "node": "import dispy_all; dispy_all._patch(); import dispy.cli.node",
        "worker": "import dispy_all, dispy.worker.main, dispy.worker.nursery",
    }
    found = imported(starts[role])
    assert {"dispy.node.service", "dispy.worker.nursery"} & found, "it is ready to start"
    assert found & (RARE - {"concurrent.futures"}) == set()
    assert found & (PACKING - {"dispy.shipping.files"}) == set()
    if role == "worker":
        assert found & HUB == set()


def test_services_are_patched_without_a_look_at_every_installed_package(tmp_path: Path) -> None:
    installed = tmp_path / "plugin-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(
        "[gevent.plugins.monkey.did_patch_all]\nplugin = plugin:called\n"
    )
    (tmp_path / "plugin.py").write_text("def called(event): pass\n")
    found = imported(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import dispy_all; dispy_all._patch()\n"
        "from gevent.monkey import is_module_patched\n"
        "assert all(map(is_module_patched, ('socket', 'threading', 'subprocess', 'time')))"
    )
    assert not {"plugin", "importlib.metadata"} & found
