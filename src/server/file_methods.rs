//! What each `fs/*` method does, and what it touches.

use super::answer_text::AnswerText;
use super::missing_watch::{MissingPaths, MissingWatches};
use super::outbox::Responder;
use super::params::Params;
use super::path_order::Touch;
use super::sandbox::{Intent, Permit};
use crate::files::{
    self, FileHandles, FilesError, FilesErrorKind, Form, LocalDevices, Patience, RemoveOptions, Replaced,
};
use crate::protocol::decode::Fields;
use crate::protocol::error::{self, RpcError};
use crate::protocol::files::{FsCanonicalizeResponse, FsCopyResponse, FsOpenMode, FsOpenResponse, FsWalkOptions};
use crate::protocol::path_uri::{PathUri, PathUriError, PathUriErrorKind, RequestPath};
use crate::protocol::sandbox::Sandbox;
use crate::sys::defect;
use crate::transport::large_memory::LargeMemory;
use serde::Serialize;
use std::borrow::Cow;
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// One method.
pub(super) struct Method {
    name: &'static str,
    /// What its parameters are called when they are no object.
    params: &'static str,
    /// Whether it may change what it touches.
    writes: bool,
    run: Run,
    at_once: Option<AtOnce>,
}

/// What a method does.
enum Run {
    /// It appends its result.
    Answer(Answer),
    /// It begins to watch.
    Watch,
}

type Answer = fn(&Call<'_>, &Fields<'_>, &mut AnswerText) -> Result<(), RpcError>;

/// Appends the result if that needs no waiting and nothing is unusual; else nothing.
type AtOnce = fn(&LocalDevices, &Fields<'_>, &mut AnswerText) -> Option<()>;

const METHODS: [Method; 14] = [
    Method {
        at_once: Some(get_metadata_at_once),
        ..reading("fs/getMetadata", "struct FsGetMetadataParams", get_metadata)
    },
    reading("fs/readFile", "struct FsReadFileParams", read_file),
    writing("fs/writeFile", "struct FsWriteFileParams", write_file),
    writing("fs/createDirectory", "struct FsCreateDirectoryParams", create_directory),
    reading("fs/canonicalize", "struct FsCanonicalizeParams", canonicalize),
    reading("fs/readDirectory", "struct FsReadDirectoryParams", read_directory),
    reading("fs/walk", "struct FsWalkParams", walk),
    writing("fs/remove", "struct FsRemoveParams", remove),
    writing("fs/copy", "struct FsCopyParams", copy),
    writing("fs/open", "struct FsOpenParams", open),
    reading("fs/readBlock", "struct FsReadBlockParams", read_block),
    writing("fs/writeBlock", "struct FsWriteBlockParams", write_block),
    writing("fs/close", "struct FsCloseParams", close),
    Method {
        name: "fs/watchMissing",
        params: "struct FsWatchMissingParams",
        writes: true,
        run: Run::Watch,
        at_once: None,
    },
];

const fn reading(name: &'static str, params: &'static str, answer: Answer) -> Method {
    Method {
        name,
        params,
        writes: false,
        run: Run::Answer(answer),
        at_once: None,
    }
}

const fn writing(name: &'static str, params: &'static str, answer: Answer) -> Method {
    Method {
        writes: true,
        ..reading(name, params, answer)
    }
}

/// The method of that name.
pub(super) fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// What a call touches, which is something. Parameters that have nothing to do with that are looked at when it is
/// carried out.
pub(super) fn touches(method: &Method, params: &Params) -> Result<Vec<Touch>, RpcError> {
    let fields = params.fields(method.params)?;
    let mut touches = Vec::new();
    let named = [
        ("path", method.writes),
        ("destinationPath", method.writes),
        ("sourcePath", false),
    ];
    for (name, writes) in named {
        if let Some(path) = fields.optional::<RequestPath>(name)? {
            let path = native(&path)?.to_owned();
            touches.push(Touch { path, writes });
        }
    }
    let writes = method.writes;
    if let Some(id) = fields.optional::<Cow<'_, str>>("handleId")? {
        let path = handle_path(&id);
        touches.push(Touch { path, writes });
    }
    if fields.optional::<u64>("watchId")?.is_some() {
        // There is one watch a connection, and each replaces the one before.
        let path = "watch".into();
        touches.push(Touch { path, writes });
    }
    if touches.is_empty() {
        return Err(RpcError::invalid_params("no path is named"));
    }
    Ok(touches)
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
    /// How long to wait for others; until the connection ends.
    pub(super) patience: &'a Patience,
    /// For large answers.
    pub(super) memory: &'a LargeMemory,
    /// What may take long to close, for when everybody has been answered.
    pub(super) replaced: &'a Cell<Option<Replaced>>,
    pub(super) devices: &'a LocalDevices,
    pub(super) permitted: Result<(), RpcError>,
}

impl Method {
    /// The result, if it can be had without waiting.
    pub(super) fn answer_at_once(&self, params: &Params, devices: &LocalDevices) -> Option<AnswerText> {
        let at_once = self.at_once?;
        let mut result = AnswerText::Small(Vec::new());
        at_once(devices, &params.fields(self.params).ok()?, &mut result)?;
        Some(result)
    }

    /// Does it and answers. Without permission it only says what is wrong, with the parameters first.
    pub(super) fn carry_out(&self, call: &Call<'_>, responder: Responder) {
        match self.run {
            Run::Answer(answer) => responder.write(|out| answer(call, &call.params.fields(self.params)?, out)),
            Run::Watch => match missing_paths(call, self.params) {
                Ok(paths) => call.watches.start(&paths, responder),
                Err(error) => responder.fail(&error),
            },
        }
    }
}

impl Call<'_> {
    /// What it may do, by the handshake and by the sandbox it names.
    fn permit(&self, fields: &Fields<'_>, intent: Intent) -> Result<Permit, RpcError> {
        let sandbox = Sandbox::of_file_call(fields)?;
        self.permitted.clone()?;
        Permit::of(sandbox.as_ref(), intent)
    }
}

/// Whether links in the path are followed, as they are unless the request says otherwise.
fn follow(fields: &Fields<'_>) -> Result<bool, RpcError> {
    Ok(fields.unless_off("followSymlinks")?)
}

fn get_metadata(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let path: RequestPath = fields.required("path")?;
    let follow = follow(fields)?;
    let permit = call.permit(fields, Intent::Read)?;
    let path = native(&path)?;
    put(out, &files::metadata(path, permit.links(follow))?)?;
    call.devices.learn(path);
    Ok(())
}

fn get_metadata_at_once(devices: &LocalDevices, fields: &Fields<'_>, out: &mut AnswerText) -> Option<()> {
    let path: RequestPath = fields.required("path").ok()?;
    let is_usual = follow(fields).ok()? && Sandbox::of_file_call(fields).ok()?.is_none();
    let metadata = devices.metadata(native(&path).ok().filter(|_| is_usual)?)?;
    put(out, &metadata).ok()
}

fn read_file(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let path: RequestPath = fields.required("path")?;
    let follow = follow(fields)?;
    let permit = call.permit(fields, Intent::Read)?;
    let file = files::open_for_reading(native(&path)?, permit.links(follow))?;
    out.push(br#"{"dataBase64":""#);
    defect::point("file encoder", || call.params.as_json());
    match file.large_text_len() {
        _ if call.params.wants_raw() => out.attach(file.read()?.into()),
        Some(len) => {
            out.expect(len, call.memory).map_err(FilesError::from)?;
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

fn write_file(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let path: RequestPath = fields.required("path")?;
    let base64: Cow<'_, str> = fields.required("dataBase64")?;
    let follow = follow(fields)?;
    let permit = call.permit(fields, Intent::Write)?;
    let mut room = Vec::new();
    let content = call.params.content("dataBase64", &base64, &mut room);
    let content = content
        .map_err(|what| RpcError::invalid_request(format!("fs/writeFile requires valid base64 dataBase64: {what}")))?;
    let replaced = files::write_file(native(&path)?, content, permit.links(follow), call.patience)?;
    call.replaced.set(Some(replaced));
    put_nothing(out)
}

fn create_directory(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let path: RequestPath = fields.required("path")?;
    let recursive = fields.unless_off("recursive")?;
    let follow = follow(fields)?;
    let permit = call.permit(fields, Intent::Write)?;
    files::create_directory(native(&path)?, recursive, permit.links(follow))?;
    put_nothing(out)
}

fn canonicalize(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let path: RequestPath = fields.required("path")?;
    let permit = call.permit(fields, Intent::Read)?;
    let path = PathUri(files::canonicalize(native(&path)?, permit.links(true))?);
    put(out, &FsCanonicalizeResponse { path })
}

fn read_directory(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let path: RequestPath = fields.required("path")?;
    let permit = call.permit(fields, Intent::Read)?;
    put(out, &files::read_directory(native(&path)?, permit.links(true))?)
}

fn walk(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let path: RequestPath = fields.required("path")?;
    let options: FsWalkOptions = fields.required("options")?;
    let permit = call.permit(fields, Intent::Read)?;
    put(out, &files::walk(native(&path)?, &options, permit.links(true))?)
}

fn remove(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let path: RequestPath = fields.required("path")?;
    let recursive = fields.unless_off("recursive")?;
    let force = fields.unless_off("force")?;
    let follow = follow(fields)?;
    let permit = call.permit(fields, Intent::Write)?;
    let options = RemoveOptions {
        recursive,
        force,
        links: permit.links(follow),
    };
    files::remove(native(&path)?, options)?;
    put_nothing(out)
}

fn copy(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let source: RequestPath = fields.required("sourcePath")?;
    let destination: RequestPath = fields.required("destinationPath")?;
    let recursive: bool = fields.required("recursive")?;
    let permit = call.permit(fields, Intent::Write)?;
    let copied = files::copy(
        native(&source)?,
        native(&destination)?,
        recursive,
        permit.links(true),
        call.patience,
    )?;
    let skipped = copied.skipped.into_iter().map(PathUri).collect();
    put(out, &FsCopyResponse { skipped })
}

fn open(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let handle_id: String = fields.required("handleId")?;
    let path: RequestPath = fields.required("path")?;
    let mode: FsOpenMode = fields.or_default("mode")?;
    let intent = match mode {
        FsOpenMode::Read => Intent::Read,
        FsOpenMode::Replace => Intent::Write,
    };
    let permit = call.permit(fields, intent)?;
    call.handles
        .open(&handle_id, native(&path)?, mode, permit.links(true))?;
    put(out, &FsOpenResponse { handle_id })
}

fn read_block(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let handle_id: Cow<'_, str> = fields.required("handleId")?;
    let offset: u64 = fields.required("offset")?;
    let len: u64 = fields.required("len")?;
    call.permitted.clone()?;
    let raw = call.params.wants_raw();
    let (mut block, form) = (Vec::new(), if raw { Form::Plain } else { Form::Base64 });
    let eof = call.handles.read_block(&handle_id, offset, len, form, &mut block)?;
    out.push(br#"{"chunk":""#);
    if raw {
        out.attach(block.into());
    } else {
        out.push(&block);
    }
    out.push(if eof { br#"","eof":true}"# } else { br#"","eof":false}"# });
    Ok(())
}

fn write_block(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let handle_id: Cow<'_, str> = fields.required("handleId")?;
    let offset: u64 = fields.required("offset")?;
    let base64: Cow<'_, str> = fields.required("chunk")?;
    call.permitted.clone()?;
    let mut room = Vec::new();
    let chunk = call.params.content("chunk", &base64, &mut room);
    let chunk = chunk.map_err(RpcError::invalid_params)?;
    call.handles.write_block(&handle_id, offset, chunk)?;
    put_nothing(out)
}

fn close(call: &Call<'_>, fields: &Fields<'_>, out: &mut AnswerText) -> Result<(), RpcError> {
    let handle_id: Cow<'_, str> = fields.required("handleId")?;
    call.permitted.clone()?;
    call.handles.close(&handle_id);
    put_nothing(out)
}

fn missing_paths(call: &Call<'_>, name: &str) -> Result<MissingPaths, RpcError> {
    let fields = call.params.fields(name)?;
    let paths = MissingPaths {
        watch_id: fields.required("watchId")?,
        missing: fields.required("missing")?,
        present: fields.optional("present")?,
    };
    call.permitted.clone()?;
    Ok(paths)
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
    // Into a vector like all other results: the code for another kind of output would be as much again.
    let mut text = out.take();
    serde_json::to_writer(&mut text, result)
        .map_err(|e| RpcError::internal(format!("failed to encode the result: {e}")))?;
    *out = AnswerText::Small(text);
    Ok(())
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
        RpcError::with_errno(code, error.message, error.errno)
    }
}
