# Tries all that could give a file a guarded name, and says what worked or failed with another error than it should.
import errno, os, socket, stat, ctypes

libc = ctypes.CDLL(None, use_errno=True)
top = os.getcwd()
os.makedirs("ready/objects")
os.makedirs("sub/sub")
open("file", "w").close()
for link, target in (("tofile", ".git"), ("totofile", "sub/../tofile"), ("toabsolute", top + "/.git"), ("tohere", "."),
                     ("totop", top), ("throughproc", "/proc/self/cwd/.git"), ("hereproc", "/proc/self/cwd")):
    os.symlink(target, link)
here = os.open(".", os.O_RDONLY)
below = os.open("sub", os.O_RDONLY | os.O_DIRECTORY)
create = os.O_CREAT | os.O_WRONLY


def close(fd):
    os.close(fd)


def bind(path):
    socket.socket(socket.AF_UNIX).bind(path)


def by_library(name, *arguments):
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), name)


def at(directory, path):
    by_library("mkdirat", directory, path, 0o700)


ATTEMPTS = []
for name in (".git", ".codex", ".agents", ".aws"):
    ATTEMPTS += [("mkdir", os.mkdir, name), ("open", lambda p: close(os.open(p, create)), name)]
for path in (".git", "./.git", "sub/../.git", "sub/sub/../../.git", top + "/.git", "//" + top + "//.git", "tohere/.git",
             "totop/.git", "../work/.git", "/proc/self/cwd/.git", "/proc/thread-self/cwd/.git", "/proc/%d/cwd/.git" % os.getpid(),
             "/proc/self/fd/%d/.git" % here, "/dev/fd/%d/.git" % here, "/proc/self/root" + top + "/.git", "hereproc/.git",
             "/proc/self/fd/%d/../.git" % below, "/proc/../proc/self/cwd/.git", "/proc/1/root" + top + "/.git"):
    other = errno.EACCES if path.startswith("/proc/1/") else errno.EROFS
    ATTEMPTS += [
        ("mkdir", os.mkdir, path, other),
        ("fifo", os.mkfifo, path, other),
        ("node", lambda p: os.mknod(p, stat.S_IFREG | 0o600), path, other),
        ("symlink", lambda p: os.symlink("file", p), path, other),
        ("link", lambda p: os.link("file", p), path, other),
        ("rename dir", lambda p: os.rename("ready", p), path, other),
        ("rename file", lambda p: os.rename("file", p), path, other),
        ("open", lambda p: close(os.open(p, create)), path, other),
        ("exclusive", lambda p: close(os.open(p, create | os.O_EXCL)), path, other),
        ("to read", lambda p: close(os.open(p, os.O_CREAT)), path, other),
        ("unfollowed", lambda p: close(os.open(p, create | os.O_NOFOLLOW)), path, other),
        ("bind", bind, path, other),
    ]
ATTEMPTS += [("slash", os.mkdir, ".git/"), ("slashes", os.mkdir, top + "/.git//"),
             ("rename slash", lambda p: os.rename("ready", p), ".git/")]
# Links that lead to nothing.
for path in ("tofile", "totofile", "toabsolute", "throughproc", "hereproc/tofile"):
    ATTEMPTS.append(("link to nothing", lambda p: close(os.open(p, create)), path))
ATTEMPTS += [
    ("descriptor", lambda p: os.mkdir(p, dir_fd=here), ".git"),
    ("descriptor of another", lambda p: os.mkdir(p, dir_fd=below), "../.git"),
    ("open by descriptor", lambda p: close(os.open(p, create, dir_fd=below)), "../.git"),
    ("rename by descriptor", lambda p: os.rename("ready", p, dst_dir_fd=here), ".git"),
    ("symlink by descriptor", lambda p: os.symlink("x", p, dir_fd=below), "../.git"),
    ("link by descriptor", lambda p: os.link("file", p, dst_dir_fd=here), ".git"),
]

for what, attempt, path, *expected in ATTEMPTS:
    expected = (expected or [errno.EROFS])[0]
    try:
        attempt(path)
        print("worked:", what, path)
    except OSError as e:
        if e.errno != expected:
            print("%s: %s %s" % (errno.errorcode[e.errno], what, path))
    for name in (".git", ".codex", ".agents", ".aws"):
        if os.path.lexists(top + "/" + name):
            print("there:", what, path, name)

# From where else it can be said.
os.chdir("sub")
for path in ("../.git", "../sub/../.git"):
    try:
        os.mkdir(path)
        print("worked:", path)
    except OSError as e:
        assert e.errno == errno.EROFS, e
os.chdir("..")

# An unnamed file gets no such name either.
AT_FDCWD, FOLLOW, EMPTY = -100, 0x400, 0x1000
for by_path in (True, False):
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR)
    old = (AT_FDCWD, b"/proc/self/fd/%d" % fd, FOLLOW) if by_path else (fd, b"", EMPTY)
    for new, expected in ((b".git", errno.EROFS), (b"linked", 0)):
        result = libc.linkat(*old[:2], AT_FDCWD, new, old[2])
        if (ctypes.get_errno() if result else 0) != expected:
            print("unnamed:", by_path, new, result, errno.errorcode[ctypes.get_errno()])
    assert os.stat("linked").st_nlink == 1
    os.unlink("linked")

# Elsewhere, and almost.
for path in ("sub/.git", "sub/.aws", ".gitignore", ".gi", "git", "..git", ".git2", ".git "):
    os.mkdir(path)
os.rename("ready", "sub/.codex")
assert os.path.isdir("sub/.codex/objects")
bind("sub/.agents")
assert stat.S_ISSOCK(os.stat("sub/.agents").st_mode)
print("done")
