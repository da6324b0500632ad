"""Whether a lock on a directory tells the truth: on a file system of this machine alone it does."""

import os
from pathlib import Path

# Types that several machines mount. A lock that one of them holds is not seen by the others on some of these.
_SHARED = ('nfs', 'cifs', 'smb', 'lustre', 'gpfs', 'ceph', 'beegfs', 'afs', '9p', 'fuse', 'glusterfs', 'virtiofs')
_MOUNTS = Path('/proc/self/mountinfo')


def is_local(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether a path is known to lie on a file system that no other machine mounts.

    Args:
        path: any file or directory.
        mounts: Linux's list of mounts; other systems have none, and there nothing is known.
    """
    try:
        device = path.stat().st_dev
        lines = mounts.read_text(errors='replace').splitlines()
    except OSError:
        return False
    number = f'{os.major(device)}:{os.minor(device)}'
    for line in lines:
        # proc_pid_mountinfo(5): the third field is the device; the type follows a hyphen.
        before, _, after = line.partition(' - ')
        if before.split()[2:3] == [number]:
            return not after.startswith(_SHARED)
    return False
