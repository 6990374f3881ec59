//! File calls of a soak, one after the other: a file is written, read in both ways, copied, moved about and removed.

use super::numbers::Numbers;
use super::random::Random;
use super::wire::{Result, Stop};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const BLOCK: u64 = 100_000;

/// What is done with one file, as far as it is.
pub(crate) struct FileTask {
    dir: PathBuf,
    numbers: Numbers,
    len: usize,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    MakeDirectory,
    Write,
    Read,
    Copy,
    Open,
    ReadBlock(u64),
    Close,
    Metadata,
    List,
    Remove,
    Over,
}

impl FileTask {
    pub(crate) fn new(dir: &Path, n: u64, random: &mut Random) -> FileTask {
        let most = if random.below(10) == 0 { 3_000_000 } else { 30_000 };
        FileTask {
            dir: dir.join(n.to_string()),
            numbers: Numbers::of(n),
            len: random.below(most),
            step: Step::MakeDirectory,
        }
    }

    fn uri(&self, name: &str) -> String {
        format!("file://{}", self.dir.join(name).display())
    }

    /// The next call.
    pub(crate) fn call(&self) -> Option<(&'static str, Value)> {
        let (original, copy) = (self.uri("original"), self.uri("copy"));
        let handle = "soak";
        Some(match self.step {
            Step::MakeDirectory => ("fs/createDirectory", json!({"path": self.uri("")})),
            Step::Write => {
                let bytes = BASE64_STANDARD.encode(self.numbers.bytes(0, self.len));
                ("fs/writeFile", json!({"path": original, "dataBase64": bytes}))
            }
            Step::Read => ("fs/readFile", json!({"path": original})),
            Step::Copy => (
                "fs/copy",
                json!({"sourcePath": original, "destinationPath": copy, "recursive": false}),
            ),
            Step::Open => ("fs/open", json!({"handleId": handle, "path": copy})),
            Step::ReadBlock(offset) => (
                "fs/readBlock",
                json!({"handleId": handle, "offset": offset, "len": BLOCK}),
            ),
            Step::Close => ("fs/close", json!({"handleId": handle})),
            Step::Metadata => ("fs/getMetadata", json!({"path": copy})),
            Step::List => ("fs/readDirectory", json!({"path": self.uri("")})),
            Step::Remove => ("fs/remove", json!({"path": self.uri("")})),
            Step::Over => return None,
        })
    }

    /// Checks an answer, and goes on.
    pub(crate) fn answered(&mut self, answer: &Value) -> Result<()> {
        let result = &answer["result"];
        let bytes = |name| BASE64_STANDARD.decode(result[name].as_str().unwrap_or("?"));
        let (is_right, next) = match self.step {
            Step::MakeDirectory => (true, Step::Write),
            Step::Write => (true, Step::Read),
            Step::Read => (
                bytes("dataBase64").is_ok_and(|bytes| bytes == self.numbers.bytes(0, self.len)),
                Step::Copy,
            ),
            Step::Copy => (true, Step::Open),
            Step::Open => (true, Step::ReadBlock(0)),
            Step::ReadBlock(offset) => {
                let len = BLOCK.min(self.len as u64 - offset);
                let is_last = offset + len == self.len as u64;
                let is_right = bytes("chunk").is_ok_and(|bytes| bytes == self.numbers.bytes(offset, len as usize));
                let next = if is_last {
                    Step::Close
                } else {
                    Step::ReadBlock(offset + len)
                };
                (is_right && (is_last || result["eof"] == false), next)
            }
            Step::Close => (true, Step::Metadata),
            Step::Metadata => (result["size"] == self.len, Step::List),
            Step::List => (result["entries"].as_array().is_some_and(|e| e.len() == 2), Step::Remove),
            Step::Remove => (true, Step::Over),
            Step::Over => (false, Step::Over),
        };
        if !is_right || result.is_null() {
            return Err(Stop::Wrong(format!(
                "{:?} of {} with {} bytes was answered {answer:.200}",
                self.step,
                self.dir.display(),
                self.len
            )));
        }
        self.step = next;
        Ok(())
    }
}
