//! What each `fs/*` method does, and what it touches.

use super::answer_text::AnswerText;
use super::dispatcher::decode;
use super::missing_watch::MissingWatches;
use super::outbox::Responder;
use super::params::Params;
use super::path_order::Touch;
use super::sandbox;
use crate::files::{self, FileHandles, FilesError, FilesErrorKind, Links, RemoveOptions};
use crate::protocol::error::{self, ErrorData, RpcError};
use crate::protocol::files::{
    FsCanonicalizeParams, FsCanonicalizeResponse, FsCloseParams, FsCopyParams, FsCopyResponse, FsCreateDirectoryParams,
    FsGetMetadataParams, FsOpenParams, FsOpenResponse, FsReadBlockParams, FsReadDirectoryParams, FsReadFileParams,
    FsRemoveParams, FsWalkParams, FsWatchMissingParams, FsWriteBlockParams, FsWriteFileParams,
};
use crate::protocol::path_uri::{PathUri, PathUriError, PathUriErrorKind, RequestPath};
use crate::protocol::sandbox::Sandbox;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// One method: its name, whether it may change what it touches, and what it does.
pub(super) struct Method {
    name: &'static str,
    writes: bool,
    run: Run,
}

/// What a method does.
#[derive(Clone, Copy)]
enum Run {
    /// It appends its result.
    Answer(fn(&Call<'_>, &mut AnswerText) -> Result<(), RpcError>),
    /// It begins to watch.
    Watch,
}

const METHODS: [Method; 14] = [
    Method {
        name: "fs/getMetadata",
        writes: false,
        run: Run::Answer(get_metadata),
    },
    Method {
        name: "fs/readFile",
        writes: false,
        run: Run::Answer(read_file),
    },
    Method {
        name: "fs/writeFile",
        writes: true,
        run: Run::Answer(write_file),
    },
    Method {
        name: "fs/createDirectory",
        writes: true,
        run: Run::Answer(create_directory),
    },
    Method {
        name: "fs/canonicalize",
        writes: false,
        run: Run::Answer(canonicalize),
    },
    Method {
        name: "fs/readDirectory",
        writes: false,
        run: Run::Answer(read_directory),
    },
    Method {
        name: "fs/walk",
        writes: false,
        run: Run::Answer(walk),
    },
    Method {
        name: "fs/remove",
        writes: true,
        run: Run::Answer(remove),
    },
    Method {
        name: "fs/copy",
        writes: true,
        run: Run::Answer(copy),
    },
    Method {
        name: "fs/open",
        writes: true,
        run: Run::Answer(open),
    },
    Method {
        name: "fs/readBlock",
        writes: false,
        run: Run::Answer(read_block),
    },
    Method {
        name: "fs/writeBlock",
        writes: true,
        run: Run::Answer(write_block),
    },
    Method {
        name: "fs/close",
        writes: true,
        run: Run::Answer(close),
    },
    Method {
        name: "fs/watchMissing",
        writes: true,
        run: Run::Watch,
    },
];

/// What a call touches; any of its parameters may be missing or wrong, which is found when they are decoded in full.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Touched<'a> {
    #[serde(default)]
    path: Option<RequestPath>,
    #[serde(default)]
    source_path: Option<RequestPath>,
    #[serde(default)]
    destination_path: Option<RequestPath>,
    #[serde(default, borrow)]
    handle_id: Option<Cow<'a, str>>,
    #[serde(default)]
    watch_id: Option<u64>,
}

/// The method of that name.
pub(super) fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// What a call touches, which is something.
pub(super) fn touches(method: &Method, params: &Params) -> Result<Vec<Touch>, RpcError> {
    let touched: Touched<'_> = decode(params)?;
    let path = |path: Option<RequestPath>, writes| {
        let touch = |path: &Path| Touch {
            path: path.to_owned(),
            writes,
        };
        path.map(|path| native(&path).map(touch)).transpose()
    };
    let own = |path| Touch {
        path,
        writes: method.writes,
    };
    let handle = touched.handle_id.map(|id| own(handle_path(&id)));
    // There is one watch a connection, and each replaces the one before.
    let watch = touched.watch_id.map(|_| own("watch".into()));
    let all = [
        path(touched.path, method.writes)?,
        path(touched.destination_path, method.writes)?,
        handle,
        watch,
        path(touched.source_path, false)?,
    ];
    let all: Vec<Touch> = all.into_iter().flatten().collect();
    if all.is_empty() {
        return Err(RpcError::invalid_params("no path is named"));
    }
    Ok(all)
}

/// Calls on the same handle keep their order too; no file has such a path, since all are absolute.
fn handle_path(id: &str) -> PathBuf {
    Path::new("handle").join(id.replace('/', "\0"))
}

/// A call as a method sees it.
pub(super) struct Call<'a> {
    pub(super) params: &'a Params,
    pub(super) handles: &'a FileHandles,
    pub(super) watches: &'a MissingWatches,
    pub(super) permitted: Result<(), RpcError>,
}

impl Method {
    /// Does it and answers. Without permission it only says what is wrong, with the parameters first.
    pub(super) fn carry_out(&self, call: &Call<'_>, responder: Responder) {
        match self.run {
            Run::Answer(run) => responder.write(|out| run(call, out)),
            Run::Watch => match call.decode::<FsWatchMissingParams>() {
                Ok(params) => call.watches.start(&params, responder),
                Err(error) => responder.fail(&error),
            },
        }
    }
}

impl<'a> Call<'a> {
    /// The parameters, if they are right and the call is permitted.
    fn decode<T: Deserialize<'a>>(&self) -> Result<T, RpcError> {
        let params = decode(self.params)?;
        self.permitted.clone()?;
        Ok(params)
    }

    /// The same for parameters with a sandbox.
    fn unrestricted<T: Deserialize<'a>>(&self, sandbox: fn(&T) -> Option<&Sandbox>) -> Result<T, RpcError> {
        let params = self.decode()?;
        sandbox::check(sandbox(&params))?;
        Ok(params)
    }
}

fn get_metadata(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsGetMetadataParams = call.unrestricted(|p: &FsGetMetadataParams| p.sandbox.as_ref())?;
    put(
        out,
        &files::metadata(native(&params.path)?, Links::from_follow(params.follow_symlinks))?,
    )
}

fn read_file(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsReadFileParams = call.unrestricted(|p: &FsReadFileParams| p.sandbox.as_ref())?;
    let file = files::open_for_reading(native(&params.path)?, Links::from_follow(params.follow_symlinks))?;
    out.push(br#"{"dataBase64":""#);
    match file.large_text_len() {
        Some(len) => {
            out.expect(len).map_err(FilesError::from)?;
            let written = file.encode_into(out.spare())?;
            out.written(written);
        }
        None => {
            let mut text = Vec::new();
            file.append_base64(&mut text)?;
            out.push(&text);
        }
    }
    out.push(br#""}"#);
    Ok(())
}

fn write_file(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsWriteFileParams<'_> = call.unrestricted(|p: &FsWriteFileParams<'_>| p.sandbox.as_ref())?;
    let links = Links::from_follow(params.follow_symlinks);
    let content = call.params.content("dataBase64", &params.data_base64);
    files::write_file(native(&params.path)?, content, links)?;
    put_nothing(out)
}

fn create_directory(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsCreateDirectoryParams = call.unrestricted(|p: &FsCreateDirectoryParams| p.sandbox.as_ref())?;
    let links = Links::from_follow(params.follow_symlinks);
    files::create_directory(native(&params.path)?, params.recursive, links)?;
    put_nothing(out)
}

fn canonicalize(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsCanonicalizeParams = call.unrestricted(|p: &FsCanonicalizeParams| p.sandbox.as_ref())?;
    let path = PathUri(files::canonicalize(native(&params.path)?)?);
    put(out, &FsCanonicalizeResponse { path })
}

fn read_directory(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsReadDirectoryParams = call.unrestricted(|p: &FsReadDirectoryParams| p.sandbox.as_ref())?;
    put(out, &files::read_directory(native(&params.path)?)?)
}

fn walk(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsWalkParams = call.unrestricted(|p: &FsWalkParams| p.sandbox.as_ref())?;
    put(out, &files::walk(native(&params.path)?, &params.options)?)
}

fn remove(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsRemoveParams = call.unrestricted(|p: &FsRemoveParams| p.sandbox.as_ref())?;
    let options = RemoveOptions {
        recursive: params.recursive,
        force: params.force,
        links: Links::from_follow(params.follow_symlinks),
    };
    files::remove(native(&params.path)?, options)?;
    put_nothing(out)
}

fn copy(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsCopyParams = call.unrestricted(|p: &FsCopyParams| p.sandbox.as_ref())?;
    let copied = files::copy(
        native(&params.source_path)?,
        native(&params.destination_path)?,
        params.recursive,
    )?;
    put(
        out,
        &FsCopyResponse {
            skipped: copied.skipped.into_iter().map(PathUri).collect(),
        },
    )
}

fn open(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsOpenParams = call.unrestricted(|p: &FsOpenParams| p.sandbox.as_ref())?;
    call.handles
        .open(&params.handle_id, native(&params.path)?, params.mode)?;
    put(
        out,
        &FsOpenResponse {
            handle_id: params.handle_id,
        },
    )
}

fn read_block(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsReadBlockParams = call.decode()?;
    let mut text = Vec::new();
    let eof = call
        .handles
        .read_block(&params.handle_id, params.offset, params.len, &mut text)?;
    out.push(br#"{"chunk":""#);
    out.push(&text);
    out.push(if eof { br#"","eof":true}"# } else { br#"","eof":false}"# });
    Ok(())
}

fn write_block(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsWriteBlockParams<'_> = call.decode()?;
    let chunk = call.params.content("chunk", &params.chunk);
    call.handles.write_block(&params.handle_id, params.offset, chunk)?;
    put_nothing(out)
}

fn close(call: &Call<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let params: FsCloseParams = call.decode()?;
    call.handles.close(&params.handle_id);
    put_nothing(out)
}

fn native(path: &RequestPath) -> Result<&Path, RpcError> {
    path.native().map_err(|e| path_error(&e))
}

fn path_error(error: &PathUriError) -> RpcError {
    match error.kind {
        PathUriErrorKind::InvalidParams => RpcError::invalid_params(&error.message),
        PathUriErrorKind::InvalidRequest => RpcError::invalid_request(&error.message),
    }
}

fn put(out: &mut AnswerText, result: &impl Serialize) -> Result<(), RpcError> {
    serde_json::to_writer(out, result).map_err(|e| RpcError::internal(format!("failed to encode the result: {e}")))
}

fn put_nothing(out: &mut AnswerText) -> Result<(), RpcError> {
    out.push(b"{}");
    Ok(())
}

impl From<FilesError> for RpcError {
    fn from(error: FilesError) -> RpcError {
        let code = match error.kind {
            FilesErrorKind::NotFound => error::NOT_FOUND,
            FilesErrorKind::InvalidRequest => error::INVALID_REQUEST,
            FilesErrorKind::InvalidParams => error::INVALID_PARAMS,
            FilesErrorKind::Internal => error::INTERNAL,
        };
        let data = error.errno.map(|errno| ErrorData { errno: Some(errno) });
        RpcError {
            code,
            message: error.message,
            data,
        }
    }
}
