# What programs do with files, all at once and under signals.
import ctypes, errno, fcntl, os, signal, socket, stat, subprocess, sys, threading

def fails(expected, act, *arguments):
    try:
        act(*arguments)
    except OSError as e:
        assert e.errno == expected, (e, errno.errorcode[expected])
    else:
        raise AssertionError((errno.errorcode[expected], arguments))

create = os.O_CREAT | os.O_WRONLY
libc = ctypes.CDLL(None, use_errno=True)

# Addresses that are none.
for path in (1, 0, -1, 2**47 - 1):
    assert libc.mkdir(ctypes.c_void_p(path), 0o700) == -1 and ctypes.get_errno() == errno.EFAULT
    assert libc.open(ctypes.c_void_p(path), create, 0o700) == -1 and ctypes.get_errno() == errno.EFAULT
    assert libc.rename(b"x", ctypes.c_void_p(path)) == -1 and ctypes.get_errno() in (errno.EFAULT, errno.ENOENT)
# A path that ends where the memory does.
import mmap
pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
libc.mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, 0)
end = start + mmap.PAGESIZE
ctypes.memmove(end - 4, b"end\0", 4)
assert libc.mkdir(ctypes.c_void_p(end - 4), 0o700) == 0 and os.path.isdir("end")
ctypes.memmove(end - 4, b"endx", 4)
assert libc.mkdir(ctypes.c_void_p(end - 4), 0o700) == -1 and ctypes.get_errno() == errno.EFAULT

# Descriptors that are none, or no directories.
fails(errno.EBADF, lambda: os.mkdir("x", dir_fd=77))
fails(errno.EBADF, lambda: os.open("x", create, dir_fd=-2))
with open("plain", "w") as f:
    fails(errno.ENOTDIR, lambda: os.mkdir("x", dir_fd=f.fileno()))
os.mkdir("/proc/self/cwd/absolute", dir_fd=77) if os.mkdir in os.supports_dir_fd else None
assert os.path.isdir("absolute")

# A group that new files take over.
os.mkdir("grouped")
os.chmod("grouped", 0o2775)
os.mkdir("grouped/below")
assert os.stat("grouped/below").st_mode & stat.S_ISGID

# Modes of what is written.
with open("text", "w") as f: f.write("one\n")
with open("text", "a") as f: f.write("two\n")
assert open("text").read() == "one\ntwo\n"
with open("text", "w") as f: f.write("x")
assert open("text").read() == "x"
fails(errno.EEXIST, open, "text", "x")
os.chmod("text", 0o444)

# A lock and a write end are given up when they are closed, by whoever made them.
for n in range(200):
    fd = os.open("lock", create, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
# And what was written can be executed at once.
for n in range(20):
    with open("script", "w") as f: f.write("#!/bin/sh\nexit 7\n")
    os.chmod("script", 0o755)
    assert subprocess.call(["./script"]) == 7

# Two that wait for each other, while others go on.
os.mkfifo("fifo")
def reader():
    with open(os.open("fifo", os.O_CREAT | os.O_RDONLY)) as f:
        got.append(f.read())
got = []
thread = threading.Thread(target=reader)
thread.start()
for n in range(50):
    open("meanwhile%d" % n, "w").close()
with open(os.open("fifo", create), "w") as f: f.write("through")
thread.join()
assert got == ["through"], got
fails(errno.ENXIO, os.open, "fifo", create | os.O_NONBLOCK)
os.close(os.open("fifo", os.O_CREAT | os.O_RDWR))
# One that is killed while it waits.
child = subprocess.Popen([sys.executable, "-c", "import os; os.write(1, b'x'); os.open('fifo', os.O_CREAT)"], stdout=subprocess.PIPE)
child.stdout.read(1)
child.kill()
child.wait()
# Nobody waits in its place for long: there is the first process, and this one.
import time
deadline = time.monotonic() + 60
while len([name for name in os.listdir("/proc") if name.isdigit()]) > 2:
    assert time.monotonic() < deadline
    time.sleep(0.01)

# More descriptors than there may be.
import resource
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (30, limits[1]))
held = []
def hold():
    while True: held.append(os.open("many", create))
fails(errno.EMFILE, hold)
for fd in held: os.close(fd)
resource.setrlimit(resource.RLIMIT_NOFILE, limits)

# Closed at an execution or not.
assert fcntl.fcntl(os.open("text2", create | os.O_CLOEXEC), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
assert fcntl.fcntl(os.open("text2", create), fcntl.F_GETFD) == 1
assert libc.open(b"text3", create, 0o600) >= 0

# Many at once.
failed = []
def make(n):
    try:
        for m in range(30):
            os.mkdir("d%d.%d" % (n, m))
            with open("d%d.%d/f" % (n, m), "w") as f: f.write("%d" % n)
            os.rename("d%d.%d/f" % (n, m), "d%d.%d/g" % (n, m))
    except Exception as e:
        failed.append(e)
threads = [threading.Thread(target=make, args=(n,)) for n in range(100)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed[:3]
assert all(open("d%d.%d/g" % (n, m)).read() == str(n) for n in range(100) for m in range(30))
# Each thread may have a directory and a umask of its own.
def apart():
    try:
        assert libc.unshare(0x200) == 0
        os.chdir("grouped")
        os.umask(0o077)
        os.mkdir("own")
    except Exception as e:
        failed.append(e)
thread = threading.Thread(target=apart)
thread.start()
thread.join()
assert not failed, failed
assert os.stat("grouped/own").st_mode & 0o777 == 0o700 and not os.path.exists("own")

# Under signals. One that comes before the gate has heard of a call has it made again; those that programs have said to be
# told of instead are.
ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
n = 0
while len(ticks) < 50:
    os.mkdir("signalled%d" % n)
    os.close(os.open("signalled%d/f" % n, create | os.O_EXCL))
    n += 1
signal.setitimer(signal.ITIMER_REAL, 0)

# A process whose memory nobody may look into.
child = os.fork()
if child == 0:
    libc.prctl(4, 0)
    os.mkdir("secretive")
    os.close(os.open("secretive/f", create))
    os.mkdir("secretive2", dir_fd=os.open("secretive", os.O_RDONLY))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0 and os.path.isdir("secretive/secretive2")

# Sockets.
server = socket.socket(socket.AF_UNIX)
server.bind("socket")
server.listen()
client = socket.socket(socket.AF_UNIX)
client.connect("socket")
server.accept()[0].close()
assert stat.S_ISSOCK(os.stat("socket").st_mode)
fails(errno.EADDRINUSE, socket.socket(socket.AF_UNIX).bind, "socket")
fails(errno.ENOENT, socket.socket(socket.AF_UNIX).bind, "nodir/socket")
socket.socket(socket.AF_UNIX).bind("\0confine-%d" % os.getpid())
socket.socket(socket.AF_UNIX).bind("")
internet = socket.socket()
internet.bind(("127.0.0.1", 0))
assert internet.getsockname()[1] != 0
fails(errno.EBADF, lambda: exec("if libc.bind(77, b'', 0): raise OSError(ctypes.get_errno(), '')"))
fails(errno.ENOTSOCK, lambda: exec("if libc.bind(1, b'', 0): raise OSError(ctypes.get_errno(), '')"))

# The gate's own are nobody's business.
for path in ("/proc/1/mem", "/proc/1/environ", "/proc/1/fd/3", "/proc/1/maps", "/proc/../proc/self/mem", "/proc/./self/maps",
             "/proc/./self/exe", "/proc/1/exe"):
    try:
        os.open(path, os.O_CREAT | os.O_RDONLY)
    except OSError as e:
        assert e.errno in (errno.EACCES, errno.EROFS, errno.EPERM), (path, e)
    else:
        raise AssertionError(path)
print("done")
