//! What a sandbox's plan must say, told path by path by somebody who follows the rules of the policy word by word.

use exec_server::files::Bounds;
use exec_server::protocol::sandbox::{
    Access, FileSystemEntry, FileSystemPath, FileSystemPolicy, NetworkPolicy, Permissions, Sandbox, SpecialPath,
};
use exec_server::sandbox::{Base, Facts, FileTree, Files, Kind, Network, Plan, Rule, RuleAccess, Surroundings, plan};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// The names that files of a made-up tree have.
pub(crate) const NAMES: [&str; 16] = [
    "a", "b", "c", "d", ".git", ".codex", ".agents", ".aws", ".env", "x.env", "tmp", "ws", "usr", "bin", "etc", "lib",
];

const MINIMAL: [&str; 8] = ["/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/lib32", "/libx32"];
const PROTECTED: [&str; 4] = [".git", ".codex", ".agents", ".aws"];

/// Plans the sandbox that `input` describes, its JSON and after a NUL the files, and panics where that is not what the
/// policy says. Tells whether there was a plan that restricts files.
pub(crate) fn check_input(input: &[u8]) -> bool {
    let nul = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (json, files) = (&input[..nul], input.get(nul + 1..).unwrap_or_default());
    let Ok(sandbox) = Sandbox::parse(json) else {
        return false;
    };
    let flags = files.first().copied().unwrap_or_default();
    let (tree, closed) = tree_of(files.get(1..).unwrap_or_default());
    let temporary = (flags & 2 != 0).then(|| PathBuf::from("/tmp/d"));
    let surroundings = Surroundings {
        cwd: "/ws".into(),
        cwd_is_of_request: flags & 1 != 0,
        temporary_directories: temporary.into_iter().collect(),
        home: Some("/a".into()),
    };
    let planned = plan(&sandbox, &surroundings, &tree);
    let plan = match &planned {
        Ok(plan) => Some(plan),
        Err(error) if error.message.contains("crosses writable symlink") => None,
        Err(_) => return false,
    };
    if let Some(plan) = plan {
        check_order(plan, &tree);
    }
    if closed || is_large(&sandbox) {
        return false;
    }
    let oracle = Oracle {
        sandbox: &sandbox,
        surroundings: &surroundings,
        tree: &tree,
    };
    oracle.check(plan);
    plan.is_some_and(|plan| plan.files != Files::Open)
}

/// A tree, and whether there is something in it that cannot be looked into.
fn tree_of(bytes: &[u8]) -> (FileTree, bool) {
    let mut tree = FileTree::default();
    let mut closed = false;
    let mut all = vec![PathBuf::from("/")];
    for node in bytes.chunks_exact(4).take(48) {
        let name = NAMES[usize::from(node[1]) % NAMES.len()];
        let path = all[usize::from(node[0]) % all.len()].join(name);
        let added = match node[2] {
            0..=127 => tree.add_directory(&path),
            128..=179 => tree.add_file(&path),
            255 => {
                closed = true;
                tree.add_closed_directory(&path)
            }
            _ => {
                let target = &all[usize::from(node[3]) % all.len()];
                match node[2] % 4 {
                    0 => tree.add_link(&path, name),
                    1 => tree.add_link(&path, Path::new("..").join(target.strip_prefix("/").expect("absolute"))),
                    _ => tree.add_link(&path, target),
                }
            }
        };
        if added {
            all.push(path);
        }
    }
    (tree, closed)
}

/// Whether it would take too long to go through it naively.
fn is_large(sandbox: &Sandbox) -> bool {
    let Permissions::Managed {
        file_system: FileSystemPolicy::Restricted { entries, .. },
        ..
    } = &sandbox.permissions
    else {
        return false;
    };
    let long = |entry: &FileSystemEntry| match &entry.path {
        FileSystemPath::GlobPattern { pattern } => pattern.len() > 60 || pattern.matches("*").count() > 6,
        _ => false,
    };
    entries.len() > 16 || sandbox.workspace_roots.len() > 4 || entries.iter().any(long)
}

/// What may be done, as the rules say when they are carried out one after the other.
fn carry_out(base: Base, rules: &[Rule], path: &Path) -> Access {
    let mut access = match base {
        Base::ReadOnly => Access::Read,
        Base::Writable => Access::Write,
        Base::Empty => Access::Deny,
    };
    for rule in rules.iter().filter(|rule| path.starts_with(&rule.path)) {
        access = access_of(&rule.access).unwrap_or(access);
    }
    access
}

fn access_of(rule: &RuleAccess) -> Option<Access> {
    match rule {
        RuleAccess::Read | RuleAccess::Absent => Some(Access::Read),
        RuleAccess::Write => Some(Access::Write),
        RuleAccess::HiddenDirectory | RuleAccess::HiddenFile => Some(Access::Deny),
        RuleAccess::Link(_) => None,
    }
}

fn restricts(rule: &Rule) -> bool {
    !matches!(rule.access, RuleAccess::Write | RuleAccess::Link(_))
}

/// Checks that the rules can be carried out, and that each is needed.
fn check_order(plan: &Plan, tree: &FileTree) {
    let Files::Restricted { base, rules } = &plan.files else {
        assert!(!plan.restricts_reads() && !plan.restricts_writes());
        assert_eq!(plan.restricts_nothing(), plan.network == Network::Open);
        return;
    };
    assert!(plan.restricts_writes() && !plan.restricts_nothing());
    let kinds: BTreeMap<&Path, Kind> = tree.paths().collect();
    for (n, rule) in rules.iter().enumerate() {
        let (path, parent) = (rule.path.as_path(), rule.path.parent().expect("not the root"));
        assert!(n == 0 || rules[n - 1].path < rule.path, "order: {rules:?}");
        assert_eq!(kinds.get(parent), Some(&Kind::Directory), "{rule:?}");
        let kind = kinds.get(path).copied();
        let above = carry_out(*base, &rules[..n], parent);
        match &rule.access {
            RuleAccess::Read | RuleAccess::Write => assert!(matches!(kind, Some(Kind::Directory | Kind::File))),
            RuleAccess::HiddenDirectory => assert_eq!(kind, Some(Kind::Directory)),
            RuleAccess::HiddenFile => assert_eq!(kind, Some(Kind::File)),
            RuleAccess::Absent => assert_eq!((kind, above), (None, Access::Write), "{rule:?}"),
            RuleAccess::Link(target) => {
                assert_eq!((kind, above), (Some(Kind::Link), Access::Deny), "{rule:?}");
                let end = resolve(tree, path).map(|(end, _)| end);
                assert_eq!(end.as_ref(), Some(target), "{rule:?}");
            }
        }
        let leads_to_restricted = |later: &Rule| restricts(later) && later.path.starts_with(path) && later.path != path;
        if access_of(&rule.access) == Some(above) {
            let pins = rule.access == RuleAccess::Write && rules[n + 1..].iter().any(leads_to_restricted);
            assert!(pins, "superfluous: {rule:?} in {rules:?}");
        }
        if restricts(rule) {
            for directory in path.ancestors().skip(1).filter(|above| above.parent().is_some()) {
                if carry_out(*base, rules, directory) != Access::Write {
                    break;
                }
                assert!(
                    rules.iter().any(|rule| rule.path == directory),
                    "may be renamed: {directory:?}"
                );
            }
        }
    }
}

/// Where a path leads, and each link that is gone through, with the part of the path that led there.
fn resolve(tree: &FileTree, path: &Path) -> Option<(PathBuf, Vec<(usize, PathBuf)>)> {
    let mut links = Vec::new();
    let end = resolve_from(tree, "/".into(), path, None, &mut links)?;
    Some((end, links))
}

fn resolve_from(
    tree: &FileTree,
    mut at: PathBuf,
    path: &Path,
    part: Option<usize>,
    links: &mut Vec<(usize, PathBuf)>,
) -> Option<PathBuf> {
    for (n, component) in path.components().filter(|part| *part != Component::CurDir).enumerate() {
        if tree.kind(&at).ok()? != Kind::Directory {
            return None;
        }
        match component {
            Component::RootDir => at = "/".into(),
            Component::ParentDir => drop(at.pop()),
            _ => at.push(component),
        }
        let part = part.unwrap_or(n.wrapping_sub(1));
        if tree.kind(&at).ok()? == Kind::Link {
            if links.len() == 40 {
                return None;
            }
            links.push((part, at.clone()));
            let target = tree.link_target(&at).ok()?;
            let from = at.parent()?.to_owned();
            at = resolve_from(tree, from, &target, Some(part), links)?;
        }
    }
    Some(at)
}

struct Oracle<'a> {
    sandbox: &'a Sandbox,
    surroundings: &'a Surroundings,
    tree: &'a FileTree,
}

struct Named {
    name: PathBuf,
    access: Access,
    explicit: bool,
}

impl Oracle<'_> {
    /// `plan` is none if a link is said to be in the way.
    fn check(&self, plan: Option<&Plan>) {
        let (policy, network) = match &self.sandbox.permissions {
            Permissions::Disabled => {
                assert!(plan.is_some_and(Plan::restricts_nothing));
                return;
            }
            Permissions::External { network } => (&FileSystemPolicy::Unrestricted, *network),
            Permissions::Managed { file_system, network } => (file_system, *network),
        };
        if let Some(plan) = plan {
            assert_eq!(plan.network == Network::Open, network == NetworkPolicy::Enabled);
        }
        let FileSystemPolicy::Restricted {
            entries,
            glob_scan_max_depth,
        } = policy
        else {
            assert!(plan.is_some_and(|plan| plan.files == Files::Open));
            return;
        };
        let depth = glob_scan_max_depth.map_or(usize::MAX, |depth| depth.get());
        let named: Vec<Vec<Named>> = entries.iter().map(|entry| self.expand(entry, depth)).collect();
        let open = self.is_open(entries, &named);
        if let Some(plan) = plan {
            assert_eq!(plan.files == Files::Open, open, "{named:?}");
        }
        if open {
            assert!(plan.is_some());
            return;
        }
        let named: Vec<Named> = named.into_iter().flatten().collect();
        let told = self.what_is_told(&named);
        assert_eq!(plan.is_none(), self.is_crossed(&named, &told), "{named:?}");
        if let Some(Plan {
            files: Files::Restricted { base, rules },
            ..
        }) = plan
            && let Some(plan) = plan
        {
            self.compare(&told, *base, rules);
            self.judge(&told, plan, rules);
            self.find_by_name(&named, *base, rules);
            let hides = told.access.values().any(|access| *access == Access::Deny) || *base == Base::Empty;
            assert!(hides || !plan.restricts_reads());
        }
    }

    fn compare(&self, told: &Told, base: Base, rules: &[Rule]) {
        for (path, _) in self.tree.paths() {
            let carried_out = carry_out(base, rules, path);
            assert_eq!(carried_out, told.at(path), "{path:?}: {rules:?} {:?}", told.access);
        }
        let absent: BTreeSet<&PathBuf> = (rules.iter())
            .filter(|rule| rule.access == RuleAccess::Absent)
            .map(|rule| &rule.path)
            .collect();
        assert_eq!(absent, told.absent.iter().collect());
    }

    /// What the plan says to calls that are not in a sandbox.
    fn judge(&self, told: &Told, plan: &Plan, rules: &[Rule]) {
        let leads_on = |path: &Path| {
            (self.tree.paths()).any(|(below, _)| below.starts_with(path) && told.at(below) != Access::Deny)
                || rules
                    .iter()
                    .any(|rule| rule.path.starts_with(path) && matches!(rule.access, RuleAccess::Link(_)))
        };
        for (path, kind) in self.tree.paths() {
            let access = told.at(path);
            let below = || self.tree.paths().filter(|(below, _)| below.starts_with(path));
            let readable = plan.may_read(path).is_ok();
            assert!(readable || access == Access::Deny, "{path:?}");
            assert!(
                !readable || access != Access::Deny || path == Path::new("/") || leads_on(path),
                "{path:?}"
            );
            assert!(!readable || plan.may_pass(path).is_ok(), "{path:?}");
            assert_eq!(plan.may_write(path).is_ok(), access == Access::Write, "{path:?}");
            let whole = below().all(|(below, _)| told.at(below) != Access::Deny);
            assert!(
                whole || kind == Kind::Link || plan.may_read_tree(path).is_err(),
                "{path:?}"
            );
            if plan.may_change(path).is_ok() {
                let parent = path.parent().expect("not the root");
                assert_eq!(told.at(parent), Access::Write, "{path:?}");
                assert!(below().all(|(below, _)| told.at(below) == Access::Write), "{path:?}");
                assert!(!told.absent.iter().any(|absent| absent.starts_with(path)), "{path:?}");
            }
        }
        for path in &told.absent {
            for path in [path.clone(), path.join("x")] {
                assert!(
                    plan.may_write(&path).is_err() && plan.may_change(&path).is_err(),
                    "{path:?}"
                );
                assert!(plan.may_read(&path).is_err(), "{path:?}");
            }
        }
    }

    /// What is granted must be found by the name that the policy uses.
    fn find_by_name(&self, named: &[Named], base: Base, rules: &[Rule]) {
        for place in named.iter().filter(|place| place.access != Access::Deny) {
            let Some((end, _)) = resolve(self.tree, &place.name) else {
                continue;
            };
            if carry_out(base, rules, &end) == Access::Deny {
                continue;
            }
            let mut at = PathBuf::from("/");
            for part in place.name.components().skip(1) {
                at.push(part);
                if carry_out(base, rules, at.parent().expect("a parent")) != Access::Deny {
                    at = resolve(self.tree, &at).expect("it is there").0;
                } else if let Some(link) = rules.iter().find(|rule| rule.path == at) {
                    if let RuleAccess::Link(target) = &link.access {
                        at.clone_from(target);
                    }
                } else {
                    let made = rules.iter().any(|rule| rule.path.starts_with(&at));
                    assert!(made, "{at:?} of {place:?} is not there: {rules:?}");
                }
            }
            assert_eq!(at, end, "{place:?}");
        }
    }

    /// Whether a protected name is a link, or a restricted one goes through a link that could be changed.
    fn is_crossed(&self, named: &[Named], told: &Told) -> bool {
        let crossed = |place: &Named| {
            let Some((_, links)) = resolve(self.tree, &place.name) else {
                return false;
            };
            let own = (named.iter())
                .filter(|other| other.access == Access::Write && place.name.starts_with(&other.name))
                .map(|other| other.name.components().count() - 1)
                .max();
            let writable = |at: &Path| told.at(at.parent().expect("a parent")) == Access::Write;
            (links.iter()).any(|(part, at)| own.is_none_or(|own| *part >= own) && writable(at))
        };
        told.protected_link
            || (named.iter()).any(|place| place.explicit && place.access != Access::Write && crossed(place))
    }

    fn is_open(&self, entries: &[FileSystemEntry], named: &[Vec<Named>]) -> bool {
        let written =
            |name: &Path| (named.iter().flatten()).any(|place| place.access == Access::Write && place.name == name);
        let is_unknown = |entry: &FileSystemEntry| match &entry.path {
            FileSystemPath::Special { value } => matches!(value, SpecialPath::Unknown {}),
            _ => false,
        };
        let harmless = |entry: &FileSystemEntry, places: &Vec<Named>| match entry.access {
            _ if is_unknown(entry) => true,
            Access::Write => true,
            Access::Deny => false,
            Access::Read if matches!(entry.path, FileSystemPath::GlobPattern { .. }) => false,
            Access::Read => !places.is_empty() && places.iter().all(|place| written(&place.name)),
        };
        written(Path::new("/")) && entries.iter().zip(named).all(|(entry, places)| harmless(entry, places))
    }

    fn what_is_told(&self, named: &[Named]) -> Told {
        let mut told = Told::default();
        let stronger = |old: Access, new: Access| match (old, new) {
            (Access::Deny, _) | (_, Access::Deny) => Access::Deny,
            (Access::Write, _) | (_, Access::Write) => Access::Write,
            _ => Access::Read,
        };
        let mut written = BTreeSet::new();
        for place in named {
            if let Some((end, _)) = resolve(self.tree, &place.name) {
                let access = told
                    .access
                    .get(&end)
                    .map_or(place.access, |old| stronger(*old, place.access));
                told.access.insert(end, access);
            }
            if place.explicit
                && place.access == Access::Write
                && let (Some(parent), Some(name)) = (place.name.parent(), place.name.file_name())
                && let Some((parent, _)) = resolve(self.tree, parent)
            {
                written.insert(parent.join(name));
            }
        }
        // A directory before what is in it.
        let mut places: Vec<PathBuf> = told.access.keys().cloned().collect();
        places.sort();
        for place in places {
            if told.access[&place] != Access::Write || self.tree.kind(&place).ok() != Some(Kind::Directory) {
                continue;
            }
            for path in PROTECTED.map(|name| place.join(name)) {
                if written.contains(&path) {
                    continue;
                }
                match told.access.get(&path) {
                    Some(Access::Write) => drop(told.access.insert(path, Access::Read)),
                    Some(_) => {}
                    None => match self.tree.kind(&path) {
                        Ok(Kind::Link) => told.protected_link = true,
                        Ok(_) => drop(told.access.insert(path, Access::Read)),
                        Err(_) => drop(told.absent.insert(path)),
                    },
                }
            }
        }
        told
    }

    fn expand(&self, entry: &FileSystemEntry, depth: usize) -> Vec<Named> {
        let (cwd, roots) = match &self.sandbox.policy_context {
            Some(context) => (&context.cwd, &context.workspace_roots),
            None => (&self.sandbox.cwd, &self.sandbox.workspace_roots),
        };
        let cwd = cwd
            .as_ref()
            .map_or(self.surroundings.cwd.as_path(), |cwd| cwd.native().expect("cwd"));
        let roots = || roots.iter().map(|root| root.native().expect("a root").to_owned());
        let mut explicit = true;
        let names: Vec<PathBuf> = match &entry.path {
            FileSystemPath::Path { path } => vec![path.native().expect("a path").to_owned()],
            FileSystemPath::Special { value } => match value {
                SpecialPath::Root => vec!["/".into()],
                SpecialPath::Minimal => {
                    explicit = false;
                    MINIMAL.map(PathBuf::from).into()
                }
                SpecialPath::ProjectRoots { subpath } => {
                    let subpath = subpath.clone().unwrap_or_default();
                    roots().map(|root| clean(&root.join(&subpath))).collect()
                }
                SpecialPath::Tmpdir if self.sandbox.temporary_directories.is_empty() => {
                    self.surroundings.temporary_directories.clone()
                }
                SpecialPath::Tmpdir => (self.sandbox.temporary_directories.iter())
                    .map(|path| path.native().expect("a directory").to_owned())
                    .collect(),
                SpecialPath::SlashTmp => vec!["/tmp".into()],
                SpecialPath::Unknown {} => vec![],
            },
            FileSystemPath::GlobPattern { pattern } => {
                explicit = false;
                let home = self.sandbox.user_home_dir.as_ref();
                let home = home.map_or(self.surroundings.home.as_deref(), |home| home.native().ok());
                let (bases, rest) = match pattern.strip_prefix("codex-project-roots://") {
                    Some(rest) => (roots().collect(), rest.trim_start_matches('/')),
                    None if pattern == "~" || pattern.starts_with("~/") => (
                        vec![home.expect("a home").to_owned()],
                        pattern[1..].trim_start_matches('/'),
                    ),
                    None => (vec![cwd.to_owned()], pattern.as_str()),
                };
                let mut names = Vec::new();
                for alternative in braces(&rest.chars().collect::<Vec<_>>()) {
                    for base in &bases {
                        self.glob(base, &alternative, depth, &mut names);
                    }
                }
                names
            }
        };
        let named = |name| Named {
            name,
            access: entry.access,
            explicit,
        };
        names.into_iter().map(named).collect()
    }

    /// All that matches a pattern without braces.
    fn glob(&self, base: &Path, pattern: &str, depth: usize, names: &mut Vec<PathBuf>) {
        let mut base = match pattern.starts_with('/') {
            true => PathBuf::from("/"),
            false => base.to_owned(),
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                // What follows a wildcard is refused.
                parts.pop();
                if parts.is_empty() {
                    base.push("..");
                }
            } else if parts.is_empty() && !part.contains(['*', '?', '[']) && part != "**" {
                base.push(part.replace('\\', ""));
            } else {
                parts.push(part);
            }
        }
        let base = clean(&base);
        if parts.is_empty() {
            names.push(base);
        } else {
            self.glob_in(&base, &parts, depth, names);
        }
    }

    fn glob_in(&self, name: &Path, parts: &[&str], depth: usize, names: &mut Vec<PathBuf>) {
        let Some((directory, _)) = resolve(self.tree, name) else {
            return;
        };
        if depth == 0 || self.tree.kind(&directory).ok() != Some(Kind::Directory) {
            return;
        }
        if parts[0] == "**" && parts.len() > 1 {
            self.glob_in(name, &parts[1..], depth, names);
        }
        for (path, kind) in self.tree.paths().filter(|(path, _)| path.parent() == Some(&directory)) {
            let own = path.file_name().and_then(|name| name.to_str()).expect("a name");
            let here = name.join(own);
            if parts[0] == "**" {
                if parts.len() == 1 {
                    names.push(here.clone());
                }
                if kind == Kind::Directory {
                    self.glob_in(&here, parts, depth - 1, names);
                }
            } else if like(&parts[0].chars().collect::<Vec<_>>(), &own.chars().collect::<Vec<_>>()) {
                if parts.len() == 1 {
                    names.push(here);
                } else {
                    self.glob_in(&here, &parts[1..], depth - 1, names);
                }
            }
        }
    }
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.name.display(), self.access, self.explicit)
    }
}

/// What the policy says about real paths.
#[derive(Default)]
struct Told {
    access: BTreeMap<PathBuf, Access>,
    absent: BTreeSet<PathBuf>,
    protected_link: bool,
}

impl Told {
    fn at(&self, path: &Path) -> Access {
        let mut best: Option<(&PathBuf, Access)> = None;
        for (place, access) in &self.access {
            let nearer = best.is_none_or(|(other, _)| place.starts_with(other));
            if path.starts_with(place) && nearer {
                best = Some((place, *access));
            }
        }
        best.map_or(Access::Deny, |(_, access)| access)
    }
}

fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// How many characters a class has that starts here, from `[` to `]`.
fn class(text: &[char]) -> usize {
    let mut n = 1;
    if matches!(text.get(n), Some('!' | '^')) {
        n += 1;
    }
    let first = n;
    while n < text.len() && (text[n] != ']' || n == first) {
        n += 1 + usize::from(text[n] == '\\');
    }
    n + 1
}

fn braces(text: &[char]) -> Vec<String> {
    let (mut n, mut depth, mut cuts) = (0, 0, Vec::new());
    while n < text.len() {
        match text[n] {
            '\\' => n += 1,
            '[' => n += class(&text[n..]) - 1,
            '{' => {
                depth += 1;
                if depth == 1 {
                    cuts.push(n);
                }
            }
            ',' if depth == 1 => cuts.push(n),
            '}' if depth == 1 => {
                cuts.push(n);
                return (cuts.windows(2))
                    .flat_map(|cut| {
                        let one = [&text[..cuts[0]], &text[cut[0] + 1..cut[1]], &text[n + 1..]].concat();
                        braces(&one)
                    })
                    .collect();
            }
            '}' if depth > 1 => depth -= 1,
            _ => {}
        }
        n += 1;
    }
    vec![text.iter().collect()]
}

/// Whether a name is like a part of a pattern, in exponential time.
fn like(part: &[char], name: &[char]) -> bool {
    match part.first() {
        None => name.is_empty(),
        Some('*') => like(&part[1..], name) || (!name.is_empty() && like(part, &name[1..])),
        Some('?') => !name.is_empty() && like(&part[1..], &name[1..]),
        Some('\\') => name.first() == part.get(1) && !name.is_empty() && like(&part[2..], &name[1..]),
        Some('[') => {
            let length = class(part);
            let inside = &part[1..length - 1];
            let negated = matches!(inside.first(), Some('!' | '^'));
            let mut items = inside[usize::from(negated)..].iter().copied().peekable();
            let mut list = Vec::new();
            while let Some(item) = items.next() {
                let escaped = item == '\\';
                list.push((if escaped { items.next().expect("escaped") } else { item }, escaped));
                if items.peek() == Some(&'-') {
                    list.push(('-', false));
                    items.next();
                }
            }
            let Some(&next) = name.first() else {
                return false;
            };
            in_class(&list, next) != negated && like(&part[length..], &name[1..])
        }
        Some(own) => name.first() == Some(own) && like(&part[1..], &name[1..]),
    }
}

fn in_class(list: &[(char, bool)], char: char) -> bool {
    match list {
        [] => false,
        [(from, _), ('-', false), (to, _), rest @ ..] => (*from..=*to).contains(&char) || in_class(rest, char),
        [(one, _), rest @ ..] => *one == char || in_class(rest, char),
    }
}
