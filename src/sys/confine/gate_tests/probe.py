# Makes each call that can make a file with each kind of path, and says what came of it. The same is to come of it
# whether names are guarded or not.
import ctypes, errno, os, shutil, socket, stat, sys

libc = ctypes.CDLL(None, use_errno=True)
HERE, FOLLOW, EMPTY = -100, 0x400, 0x1000
# The calls of x86_64; those with a directory, by the C library, elsewhere too.
OLD = {"open": 2, "creat": 85, "mkdir": 83, "mknod": 133, "symlink": 88, "link": 86, "rename": 82}


def call(*arguments):
    arguments = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(*arguments)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]


def by_library(name, *arguments):
    arguments = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_int(a) for a in arguments]
    result = getattr(libc, name)(*arguments)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]


def opened(fd):
    """What a descriptor is, which it closes."""
    if not isinstance(fd, int):
        return fd
    import fcntl
    mode, flags = os.fstat(fd).st_mode, fcntl.fcntl(fd, fcntl.F_GETFL)
    inherits = fcntl.fcntl(fd, fcntl.F_GETFD)
    os.close(fd)
    return "fd %o %o %d" % (mode, flags & ~os.O_NOFOLLOW, inherits)


C, E, W, R = os.O_CREAT, os.O_EXCL, os.O_WRONLY, os.O_RDWR
CALLS = {
    "mkdir": lambda p: by_library("mkdirat", HERE, p, 0o2757),
    "fifo": lambda p: by_library("mknodat", HERE, p, stat.S_IFIFO | 0o666, 0),
    "file": lambda p: by_library("mknodat", HERE, p, stat.S_IFREG | 0o666, 0),
    "socket": lambda p: by_library("mknodat", HERE, p, stat.S_IFSOCK | 0o666, 0),
    "null": lambda p: by_library("mknodat", HERE, p, stat.S_IFCHR | 0o666, 0x103),
    "symlink": lambda p: by_library("symlinkat", b"some/where", HERE, p),
    "link": lambda p: by_library("linkat", HERE, b"file", HERE, p, 0),
    "link of link": lambda p: by_library("linkat", HERE, b"tofile", HERE, p, 0),
    "link through link": lambda p: by_library("linkat", HERE, b"tofile", HERE, p, FOLLOW),
    "link badly": lambda p: by_library("linkat", HERE, b"file", HERE, p, 0x20000),
    "link from": lambda p: by_library("linkat", HERE, p, HERE, b"new", 0),
    "link from followed": lambda p: by_library("linkat", HERE, p, HERE, b"new", FOLLOW),
    "rename": lambda p: by_library("renameat", HERE, b"file", HERE, p),
    "rename dir": lambda p: by_library("renameat", HERE, b"dir", HERE, p),
    "rename from": lambda p: by_library("renameat", HERE, p, HERE, b"new"),
    "rename if free": lambda p: by_library("renameat2", HERE, b"file", HERE, p, 1),
    "exchange": lambda p: by_library("renameat2", HERE, b"file", HERE, p, 2),
    "create": lambda p: opened(by_library("openat", HERE, p, C | W, 0o4666)),
    "create anew": lambda p: opened(by_library("openat", HERE, p, C | E | W, 0o666)),
    "create unfollowed": lambda p: opened(by_library("openat", HERE, p, C | R | os.O_NOFOLLOW, 0o666)),
    "create to read": lambda p: opened(by_library("openat", HERE, p, C, 0o222)),
    "create and cut": lambda p: opened(by_library("openat", HERE, p, C | W | os.O_TRUNC | os.O_CLOEXEC, 0o777)),
    "append": lambda p: opened(by_library("openat", HERE, p, C | W | os.O_APPEND | os.O_NONBLOCK, 0o777)),
    "create named": lambda p: opened(by_library("openat", HERE, p, C | os.O_PATH, 0o777)),
    "create unnamed": lambda p: opened(by_library("openat", HERE, p, C | R | os.O_TMPFILE, 0o777)),
}
if os.uname().machine == "x86_64":
    CALLS |= {
        "old open": lambda p: opened(call(OLD["open"], p, C | R, 0o666)),
        "old creat": lambda p: opened(call(OLD["creat"], p, 0o640)),
        "old mkdir": lambda p: call(OLD["mkdir"], p, 0o700),
        "old mknod": lambda p: call(OLD["mknod"], p, stat.S_IFREG | 0o600, 0),
        "old symlink": lambda p: call(OLD["symlink"], b"target", p),
        "old link": lambda p: call(OLD["link"], b"file", p),
        "old rename": lambda p: call(OLD["rename"], b"file", p),
    }

PATHS = [b"new", b"new/", b"new//", b"./new", b"dir/new", b"dir/new/", b"", b".", b"..", b"/", b"//", b"./", b"dir", b"dir/",
         b"dir/.", b"dir/..", b"dir/../new", b"nodir/new", b"file", b"file/", b"file/new", b"tofile", b"tofile/", b"todir",
         b"todir/", b"todir/new", b"todir/../new", b"tonew", b"tonew/", b"tolink", b"loop", b"loop/new", b"intodir", b"outside",
         b"absolute", b"tonull", b"tonowhere", b"full", b"x" * 255, b"x" * 256, b"./" * 2046 + b"new",
         b"./" * 2047 + b"n", b"./" * 2047 + b"ne", b"/" * 4095, b"/" * 4096, b"/dev/null", b"/dev/new", b"/proc/new", b"/proc/self/cwd/new",
         b"/proc/thread-self/cwd/dir/new", b"/proc/self/new", b"throughproc/new", b"/dev/fd/9", b"tofd", b"/proc/self/fd/9",
         b"/dev/fd/77", b"/read-only", b"/etc/passwd", b"\xff\xfe"]


def tree():
    found = []
    for directory, directories, files in os.walk("."):
        for name in directories + files:
            path = os.path.join(directory, name)
            s = os.lstat(path)
            target = os.readlink(path) if stat.S_ISLNK(s.st_mode) else ""
            found.append("%s %o %d %d %s" % (path, s.st_mode, s.st_nlink, s.st_size if stat.S_ISREG(s.st_mode) else 0, target))
    return sorted(found)


def prepare(here):
    os.mkdir("dir")
    for name, text in (("file", "old text"), ("dir/file", "x"), ("full", "y" * 5000)):
        with open(name, "w") as f:
            f.write(text)
    for name, target in (("tofile", "file"), ("todir", "dir"), ("tonew", "new"), ("tolink", "tonew"), ("loop", "loop"),
                         ("intodir", "dir/newer"), ("absolute", here + "/newest"), ("outside", "../outside"),
                         ("tonull", "/dev/null"), ("tonowhere", "nodir/new"), ("throughproc", "/proc/self/cwd"), ("tofd", "/dev/fd/9")):
        os.symlink(target, name)


top = os.getcwd()
here = top + "/case"
before = None
for mask in (0o022, 0o077, 0):
    for name, make in CALLS.items():
        for path in PATHS:
            if mask != 0o022 and path not in (b"new", b"dir/new", b"tonew"):
                continue
            if before is None:
                os.umask(0o022)
                os.mkdir(here)
                os.chdir(here)
                prepare(here)
                os.dup2(os.open("full", os.O_RDWR), 9)
                before = tree()
            os.umask(mask)
            result = make(path)
            after = tree()
            outside = os.path.lexists("../outside")
            shown = path.decode("latin-1") if len(path) < 40 else "%s*%d" % (path[:2], len(path))
            print("%03o %s %r:" % (mask, name, shown), result, sorted(set(before) ^ set(after)), outside)
            if after != before or outside:
                os.closerange(3, 20)
                os.chdir(top)
                shutil.rmtree(here)
                if outside:
                    os.unlink("outside")
                before = None
