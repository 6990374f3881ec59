//! Ways out of a sandbox: each is tried by a command that may write in its workspace only and has no network, and where it
//! makes sense by one that may write nothing and shares the host's namespaces.
//!
//! With `EXEC_SERVER_ESCAPE_SERVER` another server is tried, by its command line, which sh runs. What it lets out is
//! then listed at the end of the output, as for this one (`--nocapture`).

mod kit;

use exec_server::protocol::sandbox::{NetworkPolicy, Sandbox};
use exec_server::sandbox::{Enforcer, Means};
use kit::{Client, Dir, Server, Unshared, program, until};
use nix::pty::openpty;
use nix::unistd::ttyname;
use serde_json::{Value, json};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A name, and what to run. It must not say `ESCAPED`, nor change anything outside the workspace. `OUT` is a directory
/// outside, `PID` a process outside, `TCP`, `UDP` ports and `ABSTRACT` the name of a socket that somebody listens on there.
const ATTEMPTS: &[(&str, &str)] = &[
    ("a link to a file", "ln -s $OUT/f l; echo x > l"),
    ("a link to a directory", "ln -s $OUT d; echo x > d/new; rm d/f; mv d/f x"),
    ("dots", "echo x > ../out/new; cp /dev/null ../out/f; touch ../new"),
    ("the root of a process", "for p in self 1 $$ $PPID; do echo x > /proc/$p/root$OUT/new; done"),
    ("the directory of a process", "for p in self 1; do echo x > /proc/$p/cwd/../out/new; done"),
    ("a hard link", "ln $OUT/f h && echo x > h; cp -l $OUT/f h2 && echo x > h2"),
    ("metadata", "chmod 777 $OUT/f; touch -d 2001-01-01 $OUT/f; chown 1 $OUT/f; setfattr -n user.x -v 1 $OUT/f"),
    ("truncation", "truncate -s 0 $OUT/f; dd if=/dev/zero of=$OUT/f count=1"),
    ("remounting", "mount -o remount,rw,bind / && echo ESCAPED; mount -o remount,rw / && echo ESCAPED"),
    ("mounting", "mount --bind $OUT sub && echo ESCAPED; mount -t tmpfs x $OUT && echo ESCAPED"),
    ("unmounting", "umount -l .git && echo ESCAPED; umount -l /proc && echo ESCAPED; umount -l /dev && echo ESCAPED"),
    (
        "a user namespace of its own",
        "unshare -Urm sh -c 'mount -o remount,rw,bind / && echo x > $OUT/new'; unshare -Urm sh -c 'umount -l .git && echo x > .git/config'",
    ),
    ("chroot", "mkdir -p r; chroot r /bin/true && echo ESCAPED; pivot_root . r && echo ESCAPED"),
    ("namespaces of others", "nsenter -t 1 -m -u -i -n -p true && echo ESCAPED; nsenter -t $PID -m true && echo ESCAPED"),
    ("killing", "kill -9 $PID && echo ESCAPED; kill -0 $PID && echo ESCAPED"),
    ("the memory of others", "head -c 1 /proc/$PID/mem && echo ESCAPED; ls /proc/$PID && echo ESCAPED; cat /proc/1/mem && echo ESCAPED"),
    ("privileges", "grep -q 'CapEff:.*[1-9a-f]' /proc/self/status && echo ESCAPED; grep -q 'NoNewPrivs:.*0' /proc/self/status && echo ESCAPED"),
    ("disks", "ls /dev/vda /dev/sda /dev/nvme0n1 /dev/mem /dev/kmsg 2>/dev/null && echo ESCAPED; mknod disk b 254 0 && echo ESCAPED"),
    ("settings of the kernel", "echo x > /proc/sys/kernel/core_pattern && echo ESCAPED; echo h > /proc/sysrq-trigger && echo ESCAPED; echo x > /sys/kernel/uevent_helper && echo ESCAPED"),
    ("control groups", "mkdir /sys/fs/cgroup/x && echo ESCAPED; mkdir /sys/fs/cgroup/memory/x && echo ESCAPED; echo $$ > /sys/fs/cgroup/cgroup.procs && echo ESCAPED"),
    ("the protected directory", "echo x > .git/config; rm -rf .git; mv .git moved; echo x > .git/hooks-new; ln -s /tmp .git/l; chmod -R 777 .git"),
    ("the directory above the protected one", "mv ../ws ../ws2; mv sub/inner x; rm -rf ../ws"),
    ("protected names that are missing", "mkdir .codex; echo x > .agents; mkdir t && mv t .aws; ln -s t .codex; ln -s .aws l3; echo x > l3; mkdir sub/../.codex"),
    ("descriptors", "ls /proc/self/fd | grep -v '^[0-3]$' && echo ESCAPED"),
    ("shared memory", "ls /dev/shm | grep . && echo ESCAPED; ipcs -m | grep '^0x' && echo ESCAPED"),
    ("tcp", "exec 3<>/dev/tcp/127.0.0.1/$TCP && echo ESCAPED"),
    ("udp", "echo x > /dev/udp/127.0.0.1/$UDP && echo ESCAPED"),
    (
        "abstract sockets",
        "python3 -c 'import socket,os; s=socket.socket(socket.AF_UNIX); s.connect(\"\\0\"+os.environ[\"ABSTRACT\"]); print(\"ESCAPED\")'",
    ),
    (
        "sockets that are files",
        "python3 -c 'import socket,os; s=socket.socket(socket.AF_UNIX); s.connect(os.environ[\"OUT\"]+\"/socket\"); print(\"ESCAPED\")'",
    ),
    (
        "datagrams",
        "python3 -c 'import socket,os
for family in (socket.AF_UNIX,):
  a, b = socket.socketpair(family, socket.SOCK_DGRAM)
  print(a.sendmsg([b\"x\"], [], 0, os.environ[\"OUT\"]+\"/socket\"), \"ESCAPED\")'",
    ),
    (
        "other kinds of sockets",
        "python3 -c 'import socket
for family in (socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK, socket.AF_BLUETOOTH, socket.AF_ALG):
  try: socket.socket(family, socket.SOCK_RAW); print(family, \"ESCAPED\")
  except OSError: pass
  try: socket.socket(family, socket.SOCK_STREAM); print(family, \"ESCAPED\")
  except OSError: pass'",
    ),
    ("tracing", "python3 -c 'import ctypes,os; c=ctypes.CDLL(None); print(\"ESCAPED\" if c.ptrace(16,int(os.environ[\"PID\"]),0,0)==0 or c.ptrace(16,1,0,0)==0 else \"\")'"),
    ("io_uring", "python3 -c 'import ctypes; c=ctypes.CDLL(None); b=ctypes.create_string_buffer(120); print(\"ESCAPED\" if c.syscall(425,4,b)>=0 else \"\")'"),
    (
        "file handles",
        "python3 -c 'import ctypes,os; c=ctypes.CDLL(None); h=ctypes.create_string_buffer(136); h[0]=128; m=ctypes.c_int()
c.name_to_handle_at(-100, (os.environ[\"OUT\"]+\"/f\").encode(), h, ctypes.byref(m), 0); d=os.open(\".\",0)
print(\"ESCAPED\" if c.open_by_handle_at(d,h,1)>=0 else \"\")'",
    ),
    ("typing into a terminal", "python3 -c 'import fcntl,os,pty; m,s=pty.openpty(); os.setsid() if os.getpid()!=os.getsid(0) else 0; fcntl.ioctl(s,0x540e,0); fcntl.ioctl(s,0x5412,b\"x\"); print(\"ESCAPED\")'"),
    ("keys", "python3 -c 'import ctypes; c=ctypes.CDLL(None); print(\"ESCAPED\" if c.syscall(250,0,-3,1)>=0 else \"\")'"),
    ("another numbering of calls", "python3 -c 'import ctypes; c=ctypes.CDLL(None); print(\"ESCAPED\" if c.syscall(0x40000000+39)>0 else \"\")'"),
];

/// What makes no sense without namespaces: there it is no secret what the host has, and that it has processes.
const NEED_NAMESPACES: [&str; 3] = ["the memory of others", "disks", "shared memory"];

/// More that is to fail without namespaces. The workspace can't be written either.
const ATTEMPTS_WITHOUT_NAMESPACES: &[(&str, &str)] = &[
    ("writing", "echo x > new; echo x > .git/config; mkdir d; mkfifo p; ln -s x l; rm -rf sub; mv sub moved; ln .git/config h"),
    ("the workspace's metadata", "chmod 777 .git/config .git . ; touch -d 2001-01-01 .git/config; chown 1 .git/config"),
    (
        "metadata by descriptor",
        "python3 -c 'import os
for f in os.environ[\"OUT\"]+\"/f\", \".git/config\":
  d = os.open(f, os.O_RDONLY)
  for change in (lambda: os.fchmod(d, 0o777), lambda: os.fchown(d, 1, 1), lambda: os.utime(d, (1, 1)),
                 lambda: os.setxattr(d, \"user.x\", b\"1\"), lambda: os.chmod(\"/proc/self/fd/%d\" % d, 0o777)):
    try: change(); print(\"ESCAPED\")
    except OSError: pass'",
    ),
    (
        "the newest calls for metadata",
        "python3 -c 'import ctypes,os
c = ctypes.CDLL(None); f = (os.environ[\"OUT\"]+\"/f\").encode()
attr = (ctypes.c_uint64 * 2)(); v = ctypes.create_string_buffer(b\"1\"); attr[0] = ctypes.addressof(v); attr[1] = 1
file_attr = (ctypes.c_uint64 * 4)(); file_attr[0] = 0x80
for call in ((452, -100, f, 0o777, 0), (463, -100, f, 0, b\"user.x\", attr, 16), (469, -100, f, file_attr, 24, 0)):
  print(\"ESCAPED\" if c.syscall(*call) == 0 else \"\")'",
    ),
    ("flags of files", "chattr +d $OUT/f && echo ESCAPED; chattr +A .git && echo ESCAPED; chattr -v 77 $OUT/f && echo ESCAPED"),
    ("the memory of processes", "for f in mem environ maps cwd/x root/x fd/0 ns/mnt; do head -c 1 /proc/$PID/$f && echo ESCAPED; done; readlink /proc/$PID/fd/0 && echo ESCAPED"),
    ("the server", "head -c 1 /proc/$PPID/environ && echo ESCAPED; readlink /proc/$PPID/fd/0 && echo ESCAPED; kill -0 $PPID && echo ESCAPED"),
    (
        "signals by descriptor",
        "python3 -c 'import os,signal; signal.pidfd_send_signal(os.pidfd_open(int(os.environ[\"PID\"])), 9); print(\"ESCAPED\")'",
    ),
    ("signals of files", "python3 -c 'import fcntl,os; r,w=os.pipe(); fcntl.fcntl(r,8,int(os.environ[\"PID\"])); fcntl.fcntl(r,10,9); fcntl.fcntl(r,4,fcntl.fcntl(r,3)|0x2000); os.write(w,b\"x\")'"),
    ("priorities", "renice -n 19 -p $PID && echo ESCAPED; renice -n 19 -u $(id -u) && echo ESCAPED; ionice -c 3 -p $PID && echo ESCAPED; chrt -i -p 0 $PID && echo ESCAPED; taskset -p 1 $PID && echo ESCAPED"),
    ("limits", "prlimit --pid $PID --core=0 && echo ESCAPED; prlimit --pid $PPID --core=0 && echo ESCAPED"),
    ("shared memory by number", "ipcmk -M 4096 && echo ESCAPED; ipcmk -S 1 && echo ESCAPED; ipcmk -Q && echo ESCAPED; echo x > /dev/shm/escape-test && echo ESCAPED"),
    (
        "shared memory of others",
        "python3 -c 'import ctypes,os; c=ctypes.CDLL(None); c.shmat.restype=ctypes.c_long
print(\"ESCAPED\" if c.shmat(int(os.environ[\"SHM\"]), None, 0o10000) != -1 or c.shmctl(int(os.environ[\"SHM\"]), 0, None) == 0 else \"\")'",
    ),
    ("named queues", "python3 -c 'import ctypes; c=ctypes.CDLL(None); print(\"ESCAPED\" if c.syscall(240, b\"escape-test\", 0o102, 0o600, None) >= 0 else \"\"); c.syscall(241, b\"escape-test\")'"),
    ("reading disks", "for d in /dev/vda /dev/sda /dev/nvme0n1 /dev/mem /dev/kmsg; do head -c 1 $d && echo ESCAPED; done"),
    ("other terminals", "echo x > $TERMINAL && echo ESCAPED; head -c 1 < $TERMINAL && echo ESCAPED; stty -F $TERMINAL raw && echo ESCAPED"),
];

struct Outside {
    dir: Dir,
    stranger: Child,
    tcp: TcpListener,
    udp: UdpSocket,
    _file: UnixListener,
    abstract_name: String,
    _abstract: UnixListener,
}

/// How many there have been.
static OUTSIDES: AtomicU32 = AtomicU32::new(0);

impl Outside {
    fn new() -> Outside {
        let dir = Dir::new();
        for place in ["ws/.git", "ws/sub/inner", "out"] {
            std::fs::create_dir_all(dir.path(place)).unwrap();
        }
        std::fs::write(dir.path("out/f"), "old").unwrap();
        std::fs::write(dir.path("ws/.git/config"), "old").unwrap();
        let number = OUTSIDES.fetch_add(1, Ordering::Relaxed);
        let abstract_name = format!("escape {} {number}", std::process::id());
        let name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        Outside {
            stranger: Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap(),
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            _file: UnixListener::bind(dir.path("out/socket")).unwrap(),
            abstract_name,
            _abstract: UnixListener::bind_addr(&name).unwrap(),
            dir,
        }
    }

    /// All that must not change.
    fn state(&mut self) -> String {
        let mut state = format!("stranger runs: {}\n", self.stranger.try_wait().unwrap().is_none());
        for place in ["", "out", "ws/.git"] {
            let mut names: Vec<String> = std::fs::read_dir(self.dir.path(place))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            state += &format!("{place}: {names:?}\n");
        }
        for file in ["out/f", "ws/.git/config"] {
            let mut text = String::new();
            let mut file = std::fs::File::open(self.dir.path(file)).unwrap();
            file.read_to_string(&mut text).unwrap();
            let of = file.metadata().unwrap();
            let modified = of.modified().unwrap();
            // The last of these changes with all that a file has.
            let changed = (of.ctime(), of.ctime_nsec());
            state += &format!("{text} {} {:?} {modified:?} {changed:?}\n", of.uid(), of.permissions());
        }
        for name in [".codex", ".agents", ".aws"] {
            // An empty directory does no harm.
            let path = self.dir.path("ws").join(name);
            let is_there = std::fs::symlink_metadata(&path).is_ok() && std::fs::remove_dir(&path).is_err();
            state += &format!("{name}: {is_there}\n");
        }
        state
    }

    /// The same, and what is in the workspace.
    fn whole_state(&mut self) -> String {
        let mut state = self.state();
        for place in ["ws", "ws/sub", "ws/.git"] {
            let of = std::fs::metadata(self.dir.path(place)).unwrap();
            state += &format!("{place}: {:?} {:?}\n", of.permissions(), (of.ctime(), of.ctime_nsec()));
        }
        state
    }

    /// What a command is to know.
    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OUT", self.dir.path("out").to_str().unwrap().into()),
            ("PID", self.stranger.id().to_string()),
            ("TCP", self.tcp.local_addr().unwrap().port().to_string()),
            ("UDP", self.udp.local_addr().unwrap().port().to_string()),
            ("ABSTRACT", self.abstract_name.clone()),
        ]
    }

    fn start(&self, name: &str, script: &str) -> Value {
        let special = |kind, access| json!({"path": {"type": "special", "value": {"kind": kind}}, "access": access});
        let mut start = program(name, &["/bin/bash", "--norc", "-c", script]);
        start["cwd"] = self.dir.uri("ws").into();
        start["arg0"] = Value::Null;
        for (name, value) in self.variables() {
            start["env"][name] = value.into();
        }
        start["sandbox"] = json!({
            "permissions": {"type": "managed", "network": "restricted", "file_system": {
                "type": "restricted", "entries": [special("root", "read"), special("project_roots", "write")]}},
            "cwd": self.dir.uri("ws"), "workspaceRoots": [self.dir.uri("ws")], "windowsSandboxLevel": "disabled"});
        start
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.stranger.kill();
        let _ = self.stranger.wait();
    }
}

fn connect() -> (Server, Client) {
    let (server, mut client) = match std::env::var("EXEC_SERVER_ESCAPE_SERVER") {
        Ok(command) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec {command}")]);
            Server::on_pipes(shell)
        }
        Err(_) => Server::stdio(),
    };
    client.handshake();
    (server, client)
}

#[test]
fn no_attempt_to_get_out_succeeds() {
    let means = Enforcer::default().check();
    if means != Ok(Means::Namespaces) {
        println!("not tried: {means:?}");
        return;
    }
    let (_server, mut client) = connect();
    let mut escapes = Vec::new();
    for (name, script) in ATTEMPTS {
        let mut outside = Outside::new();
        let before = outside.state();
        client.call("process/start", outside.start(name, script));
        let run = client.finish(name);
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        let after = until("what is left", || Some(outside.state()));
        let errors = String::from_utf8_lossy(&run.stderr).into_owned();
        escapes.extend(judge(name, said + &errors, before, after));
    }
    assert!(escapes.is_empty(), "{}", escapes.join("\n"));
}

/// Prints whether an attempt got out, and returns what there is to see if it did.
fn judge(name: &str, said: String, before: String, after: String) -> Option<String> {
    let is_out = said.contains("ESCAPED") || before != after;
    println!("{}  {name}", if is_out { "OUT   " } else { "denied" });
    is_out.then(|| format!("{name}: {said}\n{before}{after}"))
}

/// A piece of memory that programs share by its number.
struct SharedMemory(String);

impl SharedMemory {
    fn new() -> SharedMemory {
        let made = Command::new("ipcmk").args(["-M", "4096"]).output();
        let said = made.map_or_else(|_| Vec::new(), |output| output.stdout);
        let digits: Vec<u8> = said.into_iter().filter(u8::is_ascii_digit).collect();
        SharedMemory(String::from_utf8(digits).unwrap())
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let _ = Command::new("ipcrm")
            .args(["-m", &self.0])
            .stderr(Stdio::null())
            .status();
    }
}

/// Lets a read-only command that has no namespaces try all that is not in `pointless`.
fn try_without_namespaces(network: NetworkPolicy, pointless: &[&str]) {
    if let Err(e) = Enforcer::without_namespaces().check() {
        println!("not tried: {e}");
        return;
    }
    let memory = SharedMemory::new();
    let terminal = openpty(None, None).unwrap();
    // So that reading from it ends, where that is possible.
    nix::unistd::write(&terminal.master, b"typed\n").unwrap();
    let terminal_name = ttyname(&terminal.slave).unwrap().to_str().unwrap().to_owned();
    let is_sensible = |name: &str| !NEED_NAMESPACES.contains(&name) && !pointless.contains(&name);
    let mut escapes = Vec::new();
    for (name, script) in ATTEMPTS.iter().chain(ATTEMPTS_WITHOUT_NAMESPACES) {
        if !is_sensible(name) {
            continue;
        }
        let mut outside = Outside::new();
        let before = outside.whole_state();
        let mut variables = outside.variables();
        variables.extend([("SHM", memory.0.clone()), ("TERMINAL", terminal_name.clone())]);
        let cwd = outside.dir.path("ws").canonicalize().unwrap();
        let sandbox = Sandbox::read_only(&cwd, network);
        let end = Unshared::start(&cwd, sandbox, &variables, script).unwrap().finish();
        escapes.extend(judge(name, end.stdout + &end.stderr, before, outside.whole_state()));
    }
    assert!(escapes.is_empty(), "{}", escapes.join("\n"));
}

#[test]
fn without_namespaces_no_attempt_changes_anything() {
    try_without_namespaces(NetworkPolicy::Restricted, &[]);
}

#[test]
fn without_namespaces_and_with_the_network_no_attempt_changes_anything() {
    let network = [
        "tcp",
        "udp",
        "sockets that are files",
        "datagrams",
        "other kinds of sockets",
    ];
    try_without_namespaces(NetworkPolicy::Enabled, &network);
}
