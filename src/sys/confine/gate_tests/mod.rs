//! What holds for a program where names are guarded.

use super::tests::{Case, strings};
use super::*;
use crate::sys::pty;
use crate::sys::spawn::Leads;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::WaitStatus;
use nix::unistd::pipe2;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const PYTHON: &str = "/usr/bin/python3";
const NAMES: [&str; 4] = [".git", ".codex", ".agents", ".aws"];

/// `work` may be written, and all four names are guarded in it.
fn guarded(case: &Case) -> Mounts {
    let mut mounts = unguarded(case);
    for name in NAMES {
        mounts.guard(case.dir.join("work").join(name).as_os_str().as_bytes());
    }
    mounts
}

fn unguarded(case: &Case) -> Mounts {
    case.mounts(Base::ReadOnly, &[("work", PlaceKind::Write)])
}

/// What a Python script says, which has to succeed.
fn python(case: &Case, mounts: Mounts, script: &str) -> Option<String> {
    if !Path::new(PYTHON).exists() {
        println!("not tried: there is no {PYTHON}");
        return None;
    }
    let ended = case.try_program(mounts, &[PYTHON, "-c", script], Calls::Dangerous);
    let (text, status) = ended.unwrap();
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?} {}", tail(&text));
    Some(text)
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(2000);
    text.get(from..).unwrap_or_default()
}

#[track_caller]
fn check_absent(case: &Case) {
    for name in NAMES {
        assert!(!case.dir.join("work").join(name).is_symlink(), "{name}");
        assert!(!case.dir.join("work").join(name).exists(), "{name}");
    }
}

#[test]
fn every_call_gives_what_the_kernel_gives() {
    let Some(case) = Case::new() else { return };
    let probe = include_str!("probe.py");
    let Some(expected) = python(&case, unguarded(&case), probe) else {
        return;
    };
    let found = python(&case, guarded(&case), probe).unwrap_or_default();
    let mut differ = expected.lines().zip(found.lines()).filter(|(a, b)| a != b).peekable();
    assert!(differ.peek().is_none(), "{:#?}", differ.take(20).collect::<Vec<_>>());
    assert_eq!(expected.lines().count(), found.lines().count(), "{}", tail(&found));
    assert!(expected.lines().count() > 1000);
}

#[test]
fn no_call_makes_a_guarded_name() {
    let Some(case) = Case::new() else { return };
    if let Some(text) = python(&case, guarded(&case), include_str!("attempts.py")) {
        assert_eq!(text, "done\n");
    }
    check_absent(&case);
}

#[test]
fn no_race_makes_a_guarded_name() {
    let Some(case) = Case::new() else { return };
    if let Some(text) = python(&case, guarded(&case), include_str!("race.py")) {
        println!("{text}");
    }
    check_absent(&case);
}

#[test]
fn programs_do_with_other_files_what_they_always_do() {
    let Some(case) = Case::new() else { return };
    for mounts in [unguarded(&case), guarded(&case)] {
        let is_guarded = !mounts.guards().unwrap().is_empty();
        // What it tries at the end is nobody's business with a gate only.
        let script = include_str!("plumbing.py");
        let script = if is_guarded {
            script
        } else {
            script.split("# The gate's own").next().unwrap()
        };
        let Some(text) = python(&case, mounts, script) else {
            return;
        };
        assert_eq!(text, if is_guarded { "done\n" } else { "" });
        std::fs::remove_dir_all(case.dir.join("work")).unwrap();
        std::fs::create_dir(case.dir.join("work")).unwrap();
    }
}

#[test]
fn a_shell_cannot_make_a_guarded_name() {
    let Some(case) = Case::new() else { return };
    let script = "mkdir -p ready/a; touch file; ln -s .git link
        for name in .git .codex .agents .aws; do
            for how in 'mkdir NAME' 'touch NAME' 'cp -r ready NAME' 'mv ready NAME' 'mv -T ready NAME' 'ln file NAME' \\
                    'ln -s file NAME' 'mkfifo NAME' 'mkdir -p NAME/hooks' ': > NAME' ': >> NAME' 'cd ready && mkdir ../NAME' \\
                    'mkdir $PWD/NAME' 'cp key NAME' 'tee NAME < file'; do
                sh -c \"$(echo \"$how\" | sed s/NAME/$name/)\" 2>&1 | grep -q 'Read-only file system' || echo \"$how $name\"
            done
        done
        (true > link) 2>&1 | sed 's/.*: //'
        mkdir -p kept/.git/hooks && : > .gitignore && mkdir ready/.aws && ls -A";
    let expected = "Read-only file system\n.gitignore\nfile\nkept\nkey\nlink\nready\nsecret\n";
    assert_eq!(case.run(guarded(&case), script), (expected.to_owned(), 0));
    check_absent(&case);
}

#[test]
fn what_a_shell_does_otherwise_is_as_it_was() {
    let Some(case) = Case::new() else { return };
    let script = "echo a > /dev/null; echo b > /dev/stderr; echo c > /dev/stdout; echo d > /dev/fd/2; echo e >> /proc/self/fd/1
        (umask 077; : > private; mkdir closed); (umask 0; : > public; mkdir open); stat -c '%a %n' private closed public open
        (: > /dev/tty) 2>&1 | sed 's/.*: //'
        mkfifo pipe; echo through > pipe & cat pipe; wait
        echo one > text; echo two >> text; cat text; ln -s text soft; echo three > soft; cat text
        exec 5> held; echo kept >&5; echo more > /dev/fd/5; cat held
        set -C; true 2> /dev/null > text || echo refused; cp -r secret copy; mv copy moved; cat moved/f; mktemp -d made.XXX | wc -c";
    let expected = "b\nc\nd\ne\n600 private\n700 closed\n666 public\n777 open\nNo such device or address\nthrough\n\
                    one\ntwo\nthree\nmore\n";
    for mounts in [unguarded(&case), guarded(&case)] {
        let (text, _) = case.run(mounts, script);
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("refused\nold9\n"), "{text}");
        std::fs::remove_dir_all(case.dir.join("work")).unwrap();
        for place in ["work/kept", "work/secret"] {
            std::fs::create_dir_all(case.dir.join(place)).unwrap();
            std::fs::write(case.dir.join(place).join("f"), "old").unwrap();
        }
    }
}

#[test]
fn a_repository_can_be_made_elsewhere() {
    let Some(case) = Case::new() else { return };
    if !Path::new("/usr/bin/git").exists() {
        println!("not tried: there is no git");
        return;
    }
    let script = "export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; git init -q sub && cd sub && echo x > f && git add f &&
        git -c user.name=a -c user.email=a@b commit -qm first && git log --format=%s; cd ..; git init -q . || echo refused";
    let (text, _) = case.run(guarded(&case), script);
    assert!(text.starts_with("first\n") && text.ends_with("refused\n"), "{text}");
    check_absent(&case);
}

/// A program that was started, and its ends of its streams.
struct Running {
    child: Child,
    input: File,
    output: BufReader<File>,
}

impl Running {
    fn start(case: &Case, mounts: Mounts, script: &str, terminal: bool) -> Running {
        let confinement = Confinement {
            ground: Arc::new(Ground::new().unwrap()),
            has_network: false,
            mounts,
            filter: filter(Calls::DangerousAndNetwork),
        };
        let (input, output, theirs_in, theirs_out): (OwnedFd, OwnedFd, OwnedFd, OwnedFd) = if terminal {
            let pty = pty::open(24, 80).unwrap();
            fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
            let (master, slave) = (pty.master.try_clone().unwrap(), pty.slave.try_clone().unwrap());
            (pty.master, master, pty.slave, slave)
        } else {
            let (theirs_in, input) = pipe2(OFlag::O_CLOEXEC).unwrap();
            let (output, theirs_out) = pipe2(OFlag::O_CLOEXEC).unwrap();
            (input, output, theirs_in, theirs_out)
        };
        let program = Program {
            candidates: &strings(&["/bin/sh"]),
            argv: &strings(&["sh", "-c", script]),
            envp: &strings(&["PATH=/usr/bin:/bin"]),
            cwd: &CString::new(case.dir.join("work").as_os_str().as_bytes()).unwrap(),
            stdio: [theirs_in.as_fd(), theirs_out.as_fd(), theirs_out.as_fd()],
            leads: if terminal { Leads::Terminal } else { Leads::Session },
            mark: None,
        };
        Running {
            child: spawn(&program, &confinement).unwrap(),
            input: input.into(),
            output: BufReader::new(output.into()),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        // A terminal whose other end is closed gives an error.
        let _ = self.output.read_line(&mut line);
        line.trim_end().to_owned()
    }
}

#[test]
fn the_terminal_is_the_program_s() {
    let Some(case) = Case::new() else { return };
    let script = "echo first > /dev/tty; echo second >> /dev/tty; exec > /dev/null; echo no; echo third > /dev/tty; \
                  setsid sh -c ': > /dev/tty' 2> /dev/null || echo fourth > /dev/tty; exit 5";
    for mounts in [unguarded(&case), guarded(&case)] {
        let mut running = Running::start(&case, mounts, script, true);
        let lines: Vec<String> = (0..4).map(|_| running.line()).collect();
        assert_eq!(lines, ["first", "second", "third", "fourth"]);
        assert!(matches!(running.child.wait(), Ok(WaitStatus::Exited(_, 5))));
        assert_eq!(running.line(), "");
    }
}

#[test]
fn what_somebody_else_makes_is_to_be_read_only() {
    let Some(case) = Case::new() else { return };
    // Until it may not, but not for ever.
    let script = "while read name; do
            n=0; while true 2> /dev/null > $name/new && test $n -lt 200000; do n=$((n + 1)); done
            cat $name/f; mkdir $name 2>&1 | sed 's/.*: //'; rm -r $name 2> /dev/null; mv $name x 2> /dev/null; ls -A $name
            echo end
        done";
    let mut running = Running::start(&case, guarded(&case), script, false);
    let work = case.dir.join("work");
    for (name, is_moved) in [(".git", false), (".aws", true), (".git", true)] {
        let _ = std::fs::remove_dir_all(work.join(name));
        let made = if is_moved {
            case.dir.join("out/made")
        } else {
            work.join(name)
        };
        std::fs::create_dir(&made).unwrap();
        std::fs::write(made.join("f"), "theirs\n").unwrap();
        if is_moved {
            std::fs::rename(&made, work.join(name)).unwrap();
        }
        writeln!(running.input, "{name}").unwrap();
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "end" && !String::is_empty(line)) {
            lines.push(running.line());
        }
        // It may have been quicker, once.
        lines.retain(|line| line != "new");
        assert_eq!(lines, ["theirs", "File exists", "f", "end"], "{name}");
        assert!(!work.join("x").exists() && work.join(name).join("f").exists());
    }
    drop(running.input);
    assert!(running.child.wait().is_ok());
}

#[test]
fn a_link_that_somebody_else_makes_stays_what_it_is() {
    let Some(case) = Case::new() else { return };
    let script = "read made; n=0; while rm .git && ln -s other .git; do n=$((n+1)); done; mkdir .git; echo end";
    let mut running = Running::start(&case, guarded(&case), script, false);
    let link = case.dir.join("work/.git");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    writeln!(running.input, "made").unwrap();
    while running.line() != "end" {}
    // It may have been quicker, once; then there is nothing.
    let target = std::fs::read_link(&link);
    assert!(target.is_ok_and(|target| target == Path::new("nowhere")) || !link.is_symlink());
}

#[test]
fn a_name_that_was_taken_away_again_stays_away() {
    let Some(case) = Case::new() else { return };
    let script = "while read name; do mkdir $name 2>&1 | sed 's/.*: //'; done";
    let mut running = Running::start(&case, guarded(&case), script, false);
    for (made, expected) in [
        (false, "Read-only file system"),
        (true, "File exists"),
        (false, "Read-only file system"),
    ] {
        let place = case.dir.join("work/.codex");
        let _ = std::fs::remove_dir(&place);
        if made {
            std::fs::create_dir(&place).unwrap();
        }
        writeln!(running.input, ".codex").unwrap();
        assert_eq!(running.line(), expected);
    }
    drop(running.input);
    assert!(running.child.wait().is_ok());
}

/// The value of a line in `/proc/PID/status`.
fn status_of(pid: Pid, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn the_gate_is_small_and_ends_with_the_program() {
    let Some(case) = Case::new() else { return };
    let script = "i=0; while test $i -lt 200; do : > f$i; mkdir d$i; i=$((i+1)); done; echo ready; read end";
    let mut running = Running::start(&case, guarded(&case), script, false);
    assert_eq!(running.line(), "ready");
    let (init, _) = running.child.init.as_ref().unwrap();
    let (memory, rights) = (status_of(*init, "RssAnon:"), status_of(*init, "CapPrm:"));
    let kilobytes: u32 = memory.split(' ').next().and_then(|n| n.parse().ok()).unwrap();
    // Most of it is what this very program has written before, and still its own.
    assert!(kilobytes < 2000, "{memory}");
    assert_eq!(rights, "0000000000280000");
    assert_eq!(status_of(*init, "CapEff:"), "0000000000000000");
    running.child.kill_namespace();
    assert!(matches!(running.child.wait(), Ok(WaitStatus::Signaled(..))));
    let mut rest = String::new();
    running.output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn what_cannot_be_guarded_is_not_started() {
    let Some(case) = Case::new() else { return };
    let failed = |mounts| case.try_program(mounts, &["/bin/true"], Calls::Dangerous).unwrap_err();
    let mut mounts = unguarded(&case);
    mounts.guard(b"/tmp/.ssh");
    assert_eq!(failed(mounts).to_string(), "cannot guard the name of `/tmp/.ssh`");
    let mut mounts = unguarded(&case);
    for n in 0..65 {
        mounts.guard(format!("/{n}/.git").as_bytes());
    }
    assert_eq!(
        failed(mounts).to_string(),
        "cannot guard names in 65 directories: the most is 64"
    );
    let mut mounts = unguarded(&case);
    mounts.guard(b"/nowhere/.git");
    assert_eq!(
        failed(mounts).to_string(),
        "failed to guard the names that must not come to be at `/nowhere`: No such file or directory (os error 2)"
    );
    // In as many as there can be.
    let mut mounts = unguarded(&case);
    for n in 0..64 {
        let place = case.dir.join(format!("work/{n}"));
        std::fs::create_dir(&place).unwrap();
        mounts.guard(place.join(".git").as_os_str().as_bytes());
    }
    let script = "mkdir 0/.git 1/.git 63/.git 2> /dev/null; mkdir 0/.aws && ls -A 0 1 63";
    assert_eq!(case.run(mounts, script).0, "0:\n.aws\n\n1:\n\n63:\n");
}

#[test]
fn without_guarded_names_nobody_is_asked() {
    let Some(case) = Case::new() else { return };
    let mut running = Running::start(&case, unguarded(&case), "echo ready; read end", false);
    assert_eq!(running.line(), "ready");
    let (init, _) = running.child.init.as_ref().unwrap();
    assert_eq!(status_of(*init, "CapPrm:"), "0000000000000000");
    // It may be about to close the standard streams. Only the root user may look.
    if let Ok(descriptors) = std::fs::read_dir(format!("/proc/{init}/fd")) {
        assert!(descriptors.flatten().all(|entry| *entry.file_name() <= *"3"));
    }
    drop(running.input);
    assert!(running.child.wait().is_ok());
}
