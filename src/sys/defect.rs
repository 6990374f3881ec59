//! Defects on purpose: places in each thread where a test can have it panic.

/// A place where a thread panics if a test has asked for that; nothing in a build that is not for tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn point<T: AsRef<[u8]>>(_role: &str, _doing: impl FnOnce() -> T) {}

#[cfg(test)]
pub(crate) use planted::{plant, point};

#[cfg(test)]
mod planted {
    use std::sync::{Mutex, PoisonError};

    /// The role of a thread, and a text in what it is doing.
    static PLANTED: Mutex<Vec<(&str, String)>> = Mutex::new(Vec::new());

    /// Has the thread with that role panic once, when it does something that has `text` in it.
    pub(crate) fn plant(role: &'static str, text: &str) {
        let mut planted = PLANTED.lock().unwrap_or_else(PoisonError::into_inner);
        planted.push((role, text.to_owned()));
    }

    pub(crate) fn point<T: AsRef<[u8]>>(role: &str, doing: impl FnOnce() -> T) {
        let doing = doing();
        let doing = String::from_utf8_lossy(doing.as_ref());
        let mut planted = PLANTED.lock().unwrap_or_else(PoisonError::into_inner);
        let due = planted
            .iter()
            .position(|(at, text)| *at == role && doing.contains(text));
        let Some(due) = due else { return };
        planted.remove(due);
        drop(planted);
        panic!("a defect on purpose in the {role}");
    }
}
