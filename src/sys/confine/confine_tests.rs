use super::*;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::{mkdtemp, pipe2};
use std::ffi::CString;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(super) fn strings(words: &[&str]) -> Vec<CString> {
    words.iter().map(|w| CString::new(*w).unwrap()).collect()
}

/// A directory on the disk with some files, and what it takes to confine a shell to it.
pub(super) struct Case {
    pub(super) dir: PathBuf,
}

impl Case {
    /// None where there are no user namespaces, which nothing here can do without.
    pub(super) fn new() -> Option<Case> {
        if let Err(e) = Ground::new() {
            println!("not tried: {e}");
            return None;
        }
        let dir = mkdtemp(&std::env::temp_dir().join("confine-XXXXXX")).unwrap();
        let dir = dir.canonicalize().unwrap();
        for place in ["work/kept", "work/secret", "out"] {
            std::fs::create_dir_all(dir.join(place)).unwrap();
            std::fs::write(dir.join(place).join("f"), "old").unwrap();
        }
        std::fs::write(dir.join("work/key"), "s3cret").unwrap();
        Some(Case { dir })
    }

    pub(super) fn mounts(&self, base: Base, places: &[(&str, PlaceKind)]) -> Mounts {
        let mut mounts = Mounts::new(base);
        for (place, kind) in places {
            let path = self.dir.join(place);
            mounts.add(path.as_os_str().as_bytes(), kind.clone(), path.is_dir());
        }
        mounts
    }

    pub(super) fn try_program(
        &self,
        mounts: Mounts,
        argv: &[&str],
        calls: Calls,
    ) -> Result<(String, WaitStatus), ConfineError> {
        let null = std::fs::File::open("/dev/null").unwrap();
        let (output, input) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let confinement = Confinement {
            ground: Arc::new(Ground::new().unwrap()),
            has_network: calls == Calls::Dangerous,
            mounts,
            filter: filter(calls),
        };
        let program = Program {
            candidates: &strings(&argv[..1]),
            argv: &strings(argv),
            envp: &strings(&["PATH=/usr/bin:/bin"]),
            cwd: &CString::new(self.dir.join("work").as_os_str().as_bytes()).unwrap(),
            stdio: [null.as_fd(), input.as_fd(), input.as_fd()],
            leads: Leads::Session,
            mark: None,
        };
        let child = spawn(&program, &confinement)?;
        drop(input);
        let mut text = String::new();
        std::fs::File::from(output).read_to_string(&mut text).unwrap();
        Ok((text, child.wait().unwrap()))
    }

    /// Runs a shell script in `work`; what it said, and its exit code.
    pub(super) fn run(&self, mounts: Mounts, script: &str) -> (String, i32) {
        let ended = self.try_program(mounts, &["/bin/sh", "-c", script], Calls::DangerousAndNetwork);
        match ended.unwrap() {
            (text, WaitStatus::Exited(_, code)) => (text, code),
            (text, WaitStatus::Signaled(_, signal, _)) => (text, 128 + signal as i32),
            (_, status) => panic!("{status:?}"),
        }
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir.join(path)).unwrap()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn whole_system(mounts: &mut Mounts) {
    for place in ["/bin", "/lib", "/lib64", "/usr"] {
        match (Path::new(place).read_link(), Path::new(place).is_dir()) {
            (Ok(target), _) => {
                let target = CString::new(target.as_os_str().as_bytes()).unwrap();
                mounts.add(place.as_bytes(), PlaceKind::Link(target), false);
            }
            (_, true) => mounts.add(place.as_bytes(), PlaceKind::Read, true),
            _ => {}
        }
    }
}

#[test]
fn a_program_says_what_it_has_to_and_how_it_ends() {
    let Some(case) = Case::new() else { return };
    let read_only = || case.mounts(Base::ReadOnly, &[]);
    assert_eq!(
        case.run(read_only(), "pwd; cat kept/f; exit 3"),
        (format!("{}/work\nold", case.dir.display()), 3)
    );
    assert_eq!(
        case.run(read_only(), "kill -TERM $$; sleep 9").1,
        128 + Signal::SIGTERM as i32
    );
    // What it leaves behind ends with it, in a session of its own too: otherwise reading its output would not end.
    assert_eq!(
        case.run(read_only(), "setsid sleep 999 & echo $$; exit 4"),
        ("2\n".to_owned(), 4)
    );
}

#[test]
fn what_may_not_be_written_is_not() {
    let Some(case) = Case::new() else { return };
    let places = [("work", PlaceKind::Write), ("work/kept", PlaceKind::Read)];
    let script =
        "echo new > f && echo no > kept/f; echo no > kept/g; echo no > ../out/f; rm -rf kept; mv kept x; mkdir ../d";
    let (text, _) = case.run(case.mounts(Base::ReadOnly, &places), script);
    assert!(text.contains("Read-only file system"), "{text}");
    assert_eq!(case.text("work/f"), "new\n");
    assert_eq!(
        (case.text("work/kept/f"), case.text("out/f")),
        ("old".to_owned(), "old".to_owned())
    );
    assert!(!case.dir.join("d").exists() && !case.dir.join("work/kept/g").exists());
    let places = [("work/kept", PlaceKind::Read)];
    case.run(
        case.mounts(Base::Writable, &places),
        "echo new > ../out/f; echo no > kept/f",
    );
    assert_eq!(
        (case.text("work/kept/f"), case.text("out/f")),
        ("old".to_owned(), "new\n".to_owned())
    );
}

#[test]
fn what_is_hidden_can_be_neither_read_nor_made_readable() {
    let Some(case) = Case::new() else { return };
    let places = [
        ("work", PlaceKind::Write),
        ("work/secret", PlaceKind::HiddenDirectory),
        ("work/key", PlaceKind::HiddenFile),
    ];
    let script = "ls secret; cat secret/f; cat key; chmod 777 key secret; cat key; rm -rf key secret; mv secret x; \
                  echo no > key; ln key link; cat link; cp key copy; cat copy";
    let (text, _) = case.run(case.mounts(Base::ReadOnly, &places), script);
    assert!(!text.contains("s3cret") && !text.contains("old"), "{text}");
    assert_eq!(
        (case.text("work/key"), case.text("work/secret/f")),
        ("s3cret".to_owned(), "old".to_owned())
    );
}

#[test]
fn what_is_hidden_can_have_something_in_it_that_is_not() {
    let Some(case) = Case::new() else { return };
    std::fs::create_dir_all(case.dir.join("work/secret/a/b")).unwrap();
    std::fs::write(case.dir.join("work/secret/a/b/f"), "seen").unwrap();
    let places = [
        ("work", PlaceKind::Write),
        ("work/secret", PlaceKind::HiddenDirectory),
        ("work/secret/a/b", PlaceKind::Write),
        ("work/secret/link", PlaceKind::Link(c"a/b".to_owned())),
    ];
    let script = "cat secret/a/b/f secret/link/f; ls secret; cat secret/f; mkdir secret/x; echo new > secret/link/f";
    let (text, _) = case.run(case.mounts(Base::ReadOnly, &places), script);
    assert!(text.starts_with("seenseen") && !text.contains("old"), "{text}");
    assert_eq!(case.text("work/secret/a/b/f"), "new\n");
    assert!(!case.dir.join("work/secret/x").exists() && !case.dir.join("work/secret/link").exists());
}

#[test]
fn where_only_the_network_is_restricted_everything_else_is_as_it_was() {
    let Some(case) = Case::new() else { return };
    let script = "echo new > ../out/f; ls /dev/fd/0 && cat /proc/net/dev | wc -l";
    let (text, _) = case.run(Mounts::new(Base::Unrestricted), script);
    assert_eq!(case.text("out/f"), "new\n");
    // Two lines of headings, and the loopback device.
    assert!(text.ends_with("3\n"), "{text}");
}

#[test]
fn in_an_empty_tree_there_is_what_was_put_there() {
    let Some(case) = Case::new() else { return };
    let mut mounts = case.mounts(
        Base::Empty,
        &[("work", PlaceKind::Write), ("work/kept", PlaceKind::Read)],
    );
    whole_system(&mut mounts);
    let script =
        "cat kept/f; echo; ls ..; ls /; echo new > f; echo no > kept/f; echo no > /x; echo no > ../x; cat ../out/f";
    let (text, _) = case.run(mounts, script);
    assert!(text.starts_with("old\nwork\n"), "{text}");
    assert!(!text.lines().any(|line| line == "root" || line == "home"), "{text}");
    assert_eq!(
        (case.text("work/f"), case.text("work/kept/f")),
        ("new\n".to_owned(), "old".to_owned())
    );
    assert!(!case.dir.join("x").exists());
}

#[test]
fn devices_and_processes_are_its_own() {
    let Some(case) = Case::new() else { return };
    let script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c; ls /dev; test -w /dev/shm && echo shared; \
                  cat /proc/1/environ; ls -d /proc/[0-9]* | wc -l; echo x > /proc/sys/kernel/hostname; mknod x c 1 3";
    let (text, _) = case.run(case.mounts(Base::ReadOnly, &[("work", PlaceKind::Write)]), script);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(
        text.starts_with("3\n") && words.contains(&"shared") && words.contains(&"ptmx"),
        "{text}"
    );
    assert!(
        !words
            .iter()
            .any(|word| word.starts_with("PATH=") || word.starts_with("vda") || *word == "kmsg"),
        "{text}"
    );
    let processes: usize = words.iter().rev().find_map(|word| word.parse().ok()).unwrap();
    assert!(processes <= 6, "{text}");
    assert!(!case.dir.join("work/x").exists());
}

#[test]
fn what_could_not_be_started_leaves_nothing() {
    let Some(case) = Case::new() else { return };
    let failed = |mounts, program| case.try_program(mounts, &[program], Calls::Dangerous).unwrap_err();
    assert_eq!(
        failed(Mounts::new(Base::ReadOnly), "/nowhere/x"),
        ConfineError::Spawn(SpawnError {
            step: Step::Execute,
            errno: Errno::ENOENT
        })
    );
    let mut mounts = Mounts::new(Base::ReadOnly);
    mounts.add(b"/nowhere", PlaceKind::Write, true);
    let error = failed(mounts, "/bin/true");
    assert_eq!(
        error.to_string(),
        "failed to take the host's files at `/nowhere`: No such file or directory (os error 2)"
    );
    let hidden = [("work", PlaceKind::HiddenDirectory)];
    assert_eq!(
        failed(case.mounts(Base::ReadOnly, &hidden), "/bin/true"),
        ConfineError::Spawn(SpawnError {
            step: Step::Directory,
            errno: Errno::EACCES
        })
    );
}
