"""bubblewrap, the program that makes sandboxes on Linux: what it shows, and what it lacks."""

import glob
import os
import shutil
import subprocess
import sys

# What every program needs of its system, and nothing by which one could find out who uses it.
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
)
_SETTINGS = (
    "alternatives", "ca-certificates", "crypto-policies", "fonts", "gai.conf", "group",
    "host.conf", "hostname", "hosts", "java*", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "localtime", "magic", "mime.types", "nsswitch.conf", "OpenCL", "os-release", "passwd",
    "pki/ca-trust", "pki/tls/certs", "pki/tls/cert.pem", "pki/java", "protocols", "R",
    "resolv.conf", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
_PROCESSORS = ("/sys/devices/system/cpu", "/sys/devices/system/node")  # how many there are
# Root may write there without any capability, and so change the whole machine.
_KERNEL = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "mtrr", "driver")
_SWITCHES = (  # file, what it says where user namespaces are forbidden, to root too, what to do
    (
        "/proc/sys/user/max_user_namespaces", "0", True,
        "this machine lets nobody make user namespaces; `sysctl -w "
        "user.max_user_namespaces=10000` as root changes that",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone", "0", False,
        "this machine lets only root make user namespaces; `sysctl -w "
        "kernel.unprivileged_userns_clone=1` as root changes that",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", False,
        "AppArmor keeps programs that have no profile from using user namespaces, as on Ubuntu "
        "since 23.10; a profile for {program} with the rule `userns,` changes that, or `sysctl "
        "-w kernel.apparmor_restrict_unprivileged_userns=0` as root",
    ),
)  # fmt: skip


def find() -> str | None:
    """Return the path of the program; None: it is not there, or this is no Linux."""
    return shutil.which("bwrap") if sys.platform == "linux" else None


def knows(program: str, option: str) -> bool:
    """Say whether this version of it has an option."""
    try:
        told = subprocess.run([program, "--help"], capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return option.encode() in told.stdout + told.stderr


def is_system(path: str) -> bool:
    """Say whether every sandbox shows this path, with the system's own programs."""
    return any(path == place or path.startswith(place + "/") for place in _SYSTEM)


def of_system() -> list[str]:
    """Return the words that show this machine's programs and their settings, read-only."""
    words = []
    for place in _SYSTEM:
        if os.path.islink(place):
            words += ["--symlink", os.readlink(place), place]
        elif os.path.isdir(place):
            words += ["--ro-bind", place, place]
    for name in _SETTINGS:
        for path in sorted(glob.glob(f"/etc/{name}")):
            words += ["--ro-bind-try", path, path]
    for path in _PROCESSORS:
        words += ["--ro-bind-try", path, path]
    return words


def of_kernel() -> list[str]:
    """Return the words for processes of the sandbox's own, in which nobody steers the kernel."""
    words = ["--proc", "/proc"]
    for name in _KERNEL:
        words += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    return words


def why_not(program: str, said: str, by_root: bool) -> str:
    """Say why a sandbox could not be made, and what to do; `said` is what bubblewrap wrote.

    by_root: whether it was root who has tried.
    """
    if "nknown option" in said:
        return (
            f"{program} is too old ({said}). It takes bubblewrap 0.10, or an earlier one of a "
            f"distribution with its answer to CVE-2024-42472, which is --bind-fd"
        )
    reasons = [
        text.format(program=program)
        for path, bad, root_too, text in _SWITCHES
        if _content(path) == bad and (root_too or not by_root)
    ]
    return ". ".join([said or f"{program} said nothing", *reasons])


def _content(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None
