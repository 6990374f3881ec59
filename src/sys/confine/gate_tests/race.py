# One thread changes a path all the time while others make a directory of that name.
import ctypes, errno, multiprocessing, os, threading

shared = multiprocessing.RawArray(ctypes.c_char, 64)
stop = multiprocessing.RawValue(ctypes.c_int, 0)
address = ctypes.addressof(shared)
libc = ctypes.CDLL(None, use_errno=True)

def swap():
    good, bad = b"aaaaa\0", b".git\0\0"
    while not stop.value:
        ctypes.memmove(address, bad, 6)
        ctypes.memmove(address, good, 6)

def swap_link():
    n = 0
    while not stop.value:
        for target in ("aaaaa", ".git"):
            os.symlink(target, "next")
            os.rename("next", "link")

swappers = [multiprocessing.Process(target=swap), multiprocessing.Process(target=swap_link)]
os.symlink("aaaaa", "link")
for swapper in swappers: swapper.start()
made = refused = 0
for n in range(20000):
    if n % 4 == 0:
        result = libc.open(b"link", os.O_CREAT | os.O_WRONLY, 0o600)
        if result >= 0: os.close(result)
    elif n % 4 == 1:
        result = libc.open(ctypes.c_void_p(address), os.O_CREAT | os.O_WRONLY, 0o600)
        if result >= 0: os.close(result)
    elif n % 4 == 2:
        result = libc.symlink(b"x", ctypes.c_void_p(address))
    else:
        result = libc.mkdir(ctypes.c_void_p(address), 0o700)
    if result >= 0: made += 1
    elif ctypes.get_errno() == errno.EROFS: refused += 1
    assert not os.path.lexists(".git"), n
    for act in (os.unlink, os.rmdir):
        try: act("aaaaa")
        except OSError: pass
stop.value = 1
for swapper in swappers: swapper.join()
print("done", made, refused)
assert made > 100 and refused > 100, (made, refused)
