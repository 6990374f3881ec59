use super::*;
use crate::sys::confine::{Calls, filter_without_namespaces};
use crate::sys::pty;
use nix::sys::wait::WaitStatus;
use nix::unistd::{mkdtemp, pipe2, ttyname};
use std::ffi::CString;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

fn strings(words: &[&str]) -> Vec<CString> {
    words.iter().map(|w| CString::new(*w).unwrap()).collect()
}

/// A directory with some files, and what it takes to restrict a shell to it.
struct Case {
    dir: PathBuf,
}

impl Case {
    /// None where there is no Landlock that is new enough.
    fn new() -> Option<Case> {
        if let Err(e) = Ruleset::read_only() {
            println!("not tried: {e}");
            return None;
        }
        let dir = mkdtemp(&std::env::temp_dir().join("landlock-XXXXXX")).unwrap();
        let dir = dir.canonicalize().unwrap();
        for place in ["work", "out"] {
            fs::create_dir(dir.join(place)).unwrap();
            fs::write(dir.join(place).join("f"), "old").unwrap();
        }
        Some(Case { dir })
    }

    /// Runs a shell script in the directory, which may write at `writable`; what it said, and its exit code.
    fn run(&self, writable: &[&str], script: &str) -> (String, i32) {
        let (output, input) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let child = self.start(writable, script, [null.as_fd(), input.as_fd(), input.as_fd()], false);
        drop(input);
        let mut text = String::new();
        fs::File::from(output).read_to_string(&mut text).unwrap();
        (text, exit_code(&child))
    }

    fn start(&self, writable: &[&str], script: &str, stdio: [BorrowedFd<'_>; 3], terminal: bool) -> Child {
        let ruleset = Ruleset::read_only().unwrap();
        for place in writable {
            ruleset.allow_writing(&self.dir.join(place)).unwrap();
        }
        let program = Program {
            candidates: &strings(&["/bin/sh"]),
            argv: &strings(&["sh", "-c", script]),
            envp: &strings(&["PATH=/usr/local/bin:/usr/bin:/bin"]),
            cwd: &CString::new(self.dir.as_os_str().as_bytes()).unwrap(),
            stdio,
            leads: if terminal { Leads::Terminal } else { Leads::Session },
            mark: None,
        };
        let filter = filter_without_namespaces(Calls::DangerousAndNetwork);
        let child = spawn(&program, &Restriction { ruleset, filter }).unwrap();
        assert!(child.is_confined() && !child.has_namespaces());
        child
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.dir.join(path)).unwrap()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn exit_code(child: &Child) -> i32 {
    match child.wait().unwrap() {
        WaitStatus::Exited(_, code) => code,
        status => panic!("{status:?}"),
    }
}

#[test]
fn what_was_not_allowed_cannot_be_changed() {
    let Some(case) = Case::new() else { return };
    let before = fs::metadata(case.dir.join("out/f")).unwrap();
    let script = "echo new > work/f && echo made > work/g && rm work/g && mkdir work/d && mv work/f work/d/f && echo done; \
                  echo no > out/f; echo no > out/g; rm out/f; mv out/f work/f; ln out/f work/h; ln -s x out/l; \
                  mkfifo out/p; mkdir out/d; rmdir out; mv work/d out/d; chmod 777 out/f; touch out/f; cat out/f";
    let (text, _) = case.run(&["work"], script);
    assert!(text.starts_with("done\n") && text.ends_with("\nold"), "{text}");
    assert!(
        text.contains("Permission denied") && text.contains("Operation not permitted"),
        "{text}"
    );
    let after = fs::metadata(case.dir.join("out/f")).unwrap();
    assert_eq!(case.text("work/d/f"), "new\n");
    assert_eq!(
        (
            before.mode(),
            before.modified().unwrap(),
            before.nlink(),
            before.ctime()
        ),
        (after.mode(), after.modified().unwrap(), after.nlink(), after.ctime())
    );
    assert_eq!(fs::read_dir(case.dir.join("out")).unwrap().count(), 1);
    assert!(case.dir.join("out/f").exists() && !case.dir.join("work/h").exists());
}

#[test]
fn one_file_can_be_allowed() {
    let Some(case) = Case::new() else { return };
    case.run(
        &["out/f"],
        "echo new > out/f; echo no > work/f; rm out/f; echo no > out/g",
    );
    assert_eq!(
        (case.text("out/f"), case.text("work/f")),
        ("new\n".to_owned(), "old".to_owned())
    );
    assert!(!case.dir.join("out/g").exists());
}

#[test]
fn a_place_that_is_reached_by_a_link_cannot_be_allowed() {
    let Some(case) = Case::new() else { return };
    std::os::unix::fs::symlink("out", case.dir.join("link")).unwrap();
    let ruleset = Ruleset::read_only().unwrap();
    for place in ["link", "link/f"] {
        let path = case.dir.join(place);
        let error = ruleset.allow_writing(&path).unwrap_err();
        let expected = format!("failed to open `{}`: {}", path.display(), io::Error::from(Errno::ELOOP));
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn of_the_devices_there_are_the_harmless_ones() {
    let Some(case) = Case::new() else { return };
    let other = pty::open(24, 80).unwrap();
    let other = ttyname(&other.slave).unwrap();
    let script = format!(
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c; head -c 1 /dev/urandom | wc -c; echo x > /dev/full; \
         echo out > /dev/stdout; cat < {0}; echo typed > {0}; cat /dev/ptmx; mknod p p; echo > /dev/shm/landlock-test; exit 5",
        other.display()
    );
    let (text, code) = case.run(&[], &script);
    assert!(text.starts_with("3\n1\n") && text.contains("out\n"), "{text}");
    let refused = text.matches("Permission denied").count() + text.matches("Operation not permitted").count();
    assert_eq!((refused, code), (5, 5), "{text}");
    assert!(!Path::new("/dev/shm/landlock-test").exists());
}

#[test]
fn it_can_use_its_own_terminal_by_each_of_its_names() {
    let Some(case) = Case::new() else { return };
    let pty = pty::open(24, 80).unwrap();
    let script = "test \"$(stty size < /dev/tty)\" = '24 80' && echo x > $(tty) && exec < $(tty) && stty -echo && exit 6; exit 7";
    let child = case.start(&[], script, [pty.slave.as_fd(); 3], true);
    assert_eq!(exit_code(&child), 6);
}

#[test]
fn it_has_no_rights() {
    let Some(case) = Case::new() else { return };
    let (text, _) = case.run(
        &[],
        "grep -E '^(CapEff|CapPrm|CapInh|NoNewPrivs|Seccomp):' /proc/self/status",
    );
    let none = "0000000000000000";
    let expected = format!("CapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2\n");
    assert_eq!(text, expected);
}
