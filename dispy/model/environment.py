"""Which variables of a node's environment its jobs see: a stated list, and none of its secrets.

Jobs are other people's code. What a node's operator has in the environment, keys of cloud
services and sockets of agents among it, is none of their business; where things are on
the machine, and how libraries should behave there, is. Pure.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

# Names and patterns (`*` stands for any letters); `node.pass_env` adds to them.
PASSED = (
    # the user and the machine
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ",
    "TMPDIR", "TEMP", "TMP",
    # where Python and other programs have their parts
    "PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX*", "CONDA_DEFAULT_ENV", "CONDA_SHLVL", "CONDA_EXE",
    "CONDA_PYTHON_EXE", "LD_LIBRARY_PATH*", "LD_PRELOAD", "DYLD_*", "JAVA_HOME", "CLASSPATH",
    "R_HOME", "R_LIBS*", "JULIA_DEPOT_PATH", "PERL5LIB", "NODE_PATH", "LMOD_*", "MODULEPATH",
    # how many threads numerical libraries use, and which processors
    "OMP_*", "GOMP_*", "KMP_*", "OPENBLAS_*", "GOTO_*", "BLIS_*", "MKL_*", "NUMEXPR_*",
    "VECLIB_*", "NUMBA_*", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "MALLOC_*", "GLIBC_TUNABLES",
    # which accelerators
    "CUDA_*", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "HSA_*", "ZE_AFFINITY_MASK", "XLA_*", "TF_*", "JAX_PLATFORMS",
    # where libraries keep models and caches, and draw
    "XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "MPLBACKEND", "MPLCONFIGDIR",
    # the way into the network
    "http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    # by these the single executable knows itself again (PyInstaller)
    "_PYI_*",
)  # fmt: skip

# What dispy proves itself by; no job sees it, whatever `node.pass_env` says.
NEVER = (
    "DISPY_SECRET*", "DISPY_CERTFILE", "DISPY_KEYFILE", "DISPY_CAFILE", "DISPY_REVOKED",
)  # fmt: skip


def patterns(text: str) -> tuple[str, ...]:
    """Return the names and patterns that a setting holds, separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def environment_of_jobs(environment: Mapping[str, str], more: Iterable[str] = ()) -> dict[str, str]:
    """Return what jobs see of an environment: what PASSED and `more` name, never what NEVER does.

    "*" in `more` passes all the rest.
    """
    wanted = (*PASSED, *more)
    return {
        name: value
        for name, value in environment.items()
        if _is_one_of(name, wanted) and not _is_one_of(name, NEVER)
    }


def _is_one_of(name: str, names: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in names)
