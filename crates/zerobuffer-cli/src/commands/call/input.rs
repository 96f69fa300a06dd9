//! What `call` sends: a picture, or bytes as one request or as frames that follow each other.

use crate::args::CallArgs;
use crate::failure::Failure;
use crate::output::is_dash;
use crate::picture::Shape;
use crate::picture::file::{self, PictureFile};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use zerobuffer::Error;

/// Requests one after the other, of which nothing is read before it is known that it fits.
pub(super) enum Input {
    Picture { file: Option<Box<PictureFile>>, shape: Shape, notes: Vec<String> },
    Raw(Raw),
}

/// Bytes from a file or from standard input.
pub(super) struct Raw {
    path: PathBuf,
    from: Box<dyn Read>,
    /// Of each frame, if there are several.
    frame: Option<Shape>,
    /// Of the only request, as a file says that can be asked.
    len: Option<usize>,
    is_done: bool,
}

/// One request.
pub(super) struct Sent {
    pub(super) data: Vec<u8>,
    /// Of its picture's file.
    pub(super) profile: Option<Vec<u8>>,
}

impl Input {
    pub(super) fn open(args: &CallArgs) -> Result<Self, Failure> {
        if let Some(path) = &args.image {
            if is_dash(path) || is_dash(&args.out) {
                return Err(Failure::usage("pictures are read from and written to files, not -"));
            }
            file::check_format(&args.out)?;
            let file = PictureFile::open(path)?;
            let shape = file.shape();
            let mut notes = file.notes.clone();
            notes.extend(file::loss(&args.out, shape));
            return Ok(Self::Picture { file: Some(Box::new(file)), shape, notes });
        }
        let path = args.raw.as_deref().unwrap_or(Path::new("-"));
        Raw::open(path, args.size).map(Self::Raw)
    }

    /// The picture's size, or that of each frame.
    pub(super) fn shape(&self) -> Option<Shape> {
        match self {
            Self::Picture { shape, .. } => Some(*shape),
            Self::Raw(raw) => raw.frame,
        }
    }

    /// What will not be as in the file, for people.
    pub(super) fn notes(&self) -> &[String] {
        match self {
            Self::Picture { notes, .. } => notes,
            Self::Raw(_) => &[],
        }
    }

    /// The length of each request, if it can be known before it is read.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::Picture { shape, .. } => shape.bytes(),
            Self::Raw(raw) => raw.frame.map_or(raw.len, Shape::bytes),
        }
    }

    /// The next request, if there is one, of at most `most` bytes.
    pub(super) fn next(&mut self, most: usize) -> Result<Option<Sent>, Failure> {
        if let Some(len) = self.len().filter(|len| *len > most) {
            return Err(too_large(len, most));
        }
        match self {
            Self::Picture { file, .. } => file
                .take()
                .map(|file| {
                    let picture = file.decode(None)?;
                    Ok(Sent { data: picture.data, profile: picture.profile })
                })
                .transpose(),
            Self::Raw(raw) => raw.next(most),
        }
    }
}

/// No request of this length fits the channel.
fn too_large(len: usize, most: usize) -> Failure {
    Error::TooLarge { what: "a request", asked: len as u64, max: most as u64 }.into()
}

impl Raw {
    fn open(path: &Path, frame: Option<Shape>) -> Result<Self, Failure> {
        let unreadable = |error: io::Error| Failure::file("read", path, error);
        let (from, len): (Box<dyn Read>, _) = if is_dash(path) {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(unreadable)?;
            let found = file.metadata().map_err(unreadable)?;
            // What /proc and /sys have says 0 and holds more.
            let len = Some(found.len()).filter(|len| found.is_file() && *len > 0);
            (Box::new(file), len.and_then(|len| usize::try_from(len).ok()))
        };
        Ok(Self { path: path.to_owned(), from, frame, len, is_done: false })
    }

    fn next(&mut self, most: usize) -> Result<Option<Sent>, Failure> {
        if self.is_done {
            return Ok(None);
        }
        let wanted = self.frame.and_then(Shape::bytes);
        // A byte more than fits shows that there is more.
        let most_read = wanted.map_or(most as u64 + 1, |len| len as u64);
        let mut data = Vec::new();
        let mut limited = self.from.by_ref().take(most_read);
        limited.read_to_end(&mut data).map_err(|error| Failure::file("read", &self.path, error))?;
        match wanted {
            None if data.len() > most => {
                let message = format!("a request of more than {most} bytes is too large");
                return Err(too_large(data.len(), most).reworded(message));
            }
            None => self.is_done = true,
            Some(_) if data.is_empty() => return Ok(None),
            Some(len) if data.len() < len => {
                let (path, had) = (&self.path, data.len());
                let reason = format!("the last frame has {had} bytes, and --size says {len}");
                return Err(Failure::file("read", path, reason));
            }
            Some(_) => {}
        }
        Ok(Some(Sent { data, profile: None }))
    }
}
