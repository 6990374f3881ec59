//! Patterns of variable names.

/// A pattern that a whole name must match, whatever the case of its letters: `*` is any number
/// of characters, `?` is one, everything else is itself.
///
/// The empty pattern matches nothing, as in Codex's exec-server.
#[derive(Debug, Clone)]
pub struct Pattern(Vec<Symbol>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    /// In lower case.
    Char(char),
    Any,
    Many,
}

impl Pattern {
    /// Any text is a pattern.
    pub fn new(text: &str) -> Self {
        let mut symbols: Vec<Symbol> = text
            .chars()
            .map(|char| match char {
                '*' => Symbol::Many,
                '?' => Symbol::Any,
                char => Symbol::Char(lower(char)),
            })
            .collect();
        symbols.dedup_by(|a, b| *a == Symbol::Many && *b == Symbol::Many);
        Self(symbols)
    }

    /// Whether `name` matches.
    ///
    /// Takes at most the length of the pattern times the length of the name: where a `*` has
    /// been followed by a match of what comes up to the next `*`, an earlier `*` never has to
    /// be tried again.
    pub fn matches(&self, name: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let mut symbols = 0;
        let mut rest = name.chars();
        // Where to go on when the name does not match: after the last `*`, one character later.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if self.0.get(symbols) == Some(&Symbol::Many) {
                symbols += 1;
                if symbols == self.0.len() {
                    return true;
                }
                retry = Some((symbols, rest.clone()));
                continue;
            }
            let next = rest.next();
            let fits = match (self.0.get(symbols), next) {
                (None, None) => return true,
                (Some(Symbol::Any), Some(_)) => true,
                (Some(Symbol::Char(char)), Some(next)) => *char == lower(next),
                _ => false,
            };
            if fits {
                symbols += 1;
                continue;
            }
            // A name that has ended does not get longer by starting later.
            let Some((after, from)) = retry.as_mut().filter(|_| next.is_some()) else {
                return false;
            };
            from.next();
            symbols = *after;
            rest = from.clone();
        }
    }
}

/// The lower case of characters that have a single one; enough to find two cases equal.
fn lower(char: char) -> char {
    let mut lower = char.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(one), None) => one,
        _ => char,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_a_whole() {
        let table: [(&str, &[&str], &[&str]); 16] = [
            ("", &[], &["", "A"]),
            ("*", &["", "A", "ABC", "ä"], &[]),
            ("***", &["", "A"], &[]),
            ("?", &["A", "ä", "*"], &["", "AB"]),
            ("PATH", &["PATH", "path", "Path"], &["PATHX", "XPATH", "PAT", ""]),
            ("conf_*", &["CONF_", "CONF_A", "conf_x_y"], &["CONF", "XCONF_A"]),
            ("*_id", &["_ID", "A_ID", "_ID_ID"], &["ID", "A_IDX"]),
            ("*KEY*", &["KEY", "MONKEY", "keyboard", "A_KEY_B"], &["KE", "K_E_Y", ""]),
            (
                "a*b*c",
                &["abc", "aXbXc", "abbcc", "ABCC"],
                &["ab", "abcX", "acb", "ac"],
            ),
            ("a?c", &["abc", "aäc"], &["ac", "abbc"]),
            ("*?", &["a", "ab"], &[""]),
            ("?*", &["a", "ab"], &[""]),
            ("*a?", &["aab", "xab", "aa"], &["a", "ab__"]),
            ("[a-c]", &["[a-c]", "[A-C]"], &["a", "b"]),
            ("a\\*", &["a\\", "A\\b"], &["a*"]),
            ("Ärger", &["ärger", "ÄRGER"], &["ARGER"]),
        ];
        for (pattern, yes, no) in table {
            let compiled = Pattern::new(pattern);
            for name in yes {
                assert!(compiled.matches(name), "{pattern} {name}");
            }
            for name in no {
                assert!(!compiled.matches(name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn many_stars_do_not_blow_up() {
        let pattern = Pattern::new(&"a*".repeat(300));
        let name = "a".repeat(299);
        assert!(!pattern.matches(&name));
        assert!(pattern.matches(&(name.clone() + "a")));
        let pattern = Pattern::new(&format!("{}b", "*a".repeat(300)));
        assert!(!pattern.matches(&"a".repeat(3_000)));
    }

    /// The definition, in exponential time.
    fn slow(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), None) => slow(rest, name),
            (Some(('*', rest)), Some((_, shorter))) => slow(rest, name) || slow(pattern, shorter),
            (Some(('?', rest)), Some((_, shorter))) => slow(rest, shorter),
            (Some((a, rest)), Some((b, shorter))) => a == b && slow(rest, shorter),
            _ => false,
        }
    }

    #[test]
    fn every_short_pattern_does_what_its_definition_says() {
        let words = |letters: [char; 4], most: u32| {
            (0..4usize.pow(most)).map(move |n| -> Vec<char> {
                (0..most)
                    .map(|place| letters[n / 4usize.pow(place) % 4])
                    .filter(|&letter| letter != '-')
                    .collect()
            })
        };
        for pattern in words(['-', 'a', '*', '?'], 5).filter(|pattern| !pattern.is_empty()) {
            let text: String = pattern.iter().collect();
            let compiled = Pattern::new(&text);
            for name in words(['-', 'a', 'b', '-'], 4) {
                let expected = slow(&pattern, &name);
                let name: String = name.iter().collect();
                assert_eq!(compiled.matches(&name), expected, "{text} {name}");
            }
        }
    }
}
