"""Messages for errors caused outside the program: memory, disks, limits of the system, killed processes."""

import errno
from collections.abc import Iterator

NO_MEMORY = "the memory does not suffice: try a smaller --batch-size or --S, or fewer --workers"
NO_MEMORY_TO_IMPORT = (
    "the memory does not suffice to load torch and other libraries: close other programs, "
    "or raise the limit (ulimit -v)"
)
WORKER_DIED = (
    "a process that decodes images was killed, probably because memory ran out: "
    "try fewer --workers (0 for none) or a smaller --batch-size"
)
NO_SHARED_MEMORY = (
    "the shared memory in /dev/shm does not suffice: try --workers 0, or give the container more "
    "(docker run --shm-size 1g)"
)
TOO_MANY_FILES = "too many open files: try --workers 0, or raise the limit (ulimit -n 1024)"
TOO_MANY_PROCESSES = (
    "the system starts no more processes or threads: try --workers 0, or raise the limits of processes and "
    "memory (ulimit -u, ulimit -v)"
)
FULL_DISK = "the disk is full: free some space and run the command again"

SHM = "/dev/shm"

ERRNOS = {
    errno.ENOMEM: NO_MEMORY,
    errno.EMFILE: TOO_MANY_FILES,
    errno.ENFILE: TOO_MANY_FILES,
    errno.EAGAIN: TOO_MANY_PROCESSES,
}
"""Messages by error number, for errors that do not concern a file."""

TEXTS = {
    "DataLoader worker (pid": WORKER_DIED,
    "process in the process pool was terminated": WORKER_DIED,
    "shared memory": NO_SHARED_MEMORY,
    SHM: NO_SHARED_MEMORY,
    "out of memory": NO_MEMORY,
    "can't allocate memory": NO_MEMORY,
    "Cannot allocate memory": NO_MEMORY,
    "bad_alloc": NO_MEMORY,
    "not enough memory": NO_MEMORY,
    "failed to map segment": NO_MEMORY,
    "libllvmlite.so": NO_MEMORY_TO_IMPORT,  # the error of its loader names this file but no reason
    "ALLOC_FAILED": NO_MEMORY,
    "unable to mmap": NO_MEMORY,
    "could not create a primitive": NO_MEMORY,
    "could not create a memory object": NO_MEMORY,
    "Too many open files": TOO_MANY_FILES,
    "received 0 items of ancdata": TOO_MANY_FILES,
    "can't start new thread": TOO_MANY_PROCESSES,
    "Resource temporarily unavailable": TOO_MANY_PROCESSES,
    "No space left on device": FULL_DISK,
    "busy or unavailable": "the GPU is in use by another program: try --device cpu, or another GPU",
    "uncorrectable ECC": "the GPU reports a fault of its memory: try --device cpu, or another GPU",
}
"""Messages by part of an error's text, since torch has no classes for these errors."""

PROJECT_PACKAGES = ("utils", "models")


def outside_error(error: BaseException) -> str | None:
    """Return a message of one line for an error caused outside the program; None for a bug in the program."""
    if isinstance(error, MemoryError):
        return NO_MEMORY
    text = str(error).strip()
    if (
        isinstance(error, OSError)
        and error.errno is not None
        and not str(error.filename or "").startswith(SHM)
    ):
        return ERRNOS.get(error.errno, text)
    if isinstance(error, RuntimeError | OSError | ImportError):
        for part, line in TEXTS.items():
            if part in text:
                return NO_MEMORY_TO_IMPORT if line is NO_MEMORY and isinstance(error, ImportError) else line
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(PROJECT_PACKAGES):
        return f"{text}: pip install -r requirements.txt"
    if isinstance(error, OSError | UnicodeError):
        # The text of an error from a worker is a traceback, whose last line is the message.
        return text.splitlines()[-1] if text else type(error).__name__
    return None


def is_shortage(error: BaseException) -> bool:
    """Return whether an error means that the system is short of memory, files or processes."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in ERRNOS)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it, from the last to the first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
