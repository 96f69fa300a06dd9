//! Files that appear whole or not at all: written beside their place, and renamed when all is there.

use crate::failure::Failure;
use crate::interrupt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::NamedTempFile;

/// Mode of a file that nobody had made before; the umask takes its bits away.
const NEW_FILE: u32 = 0o666;

/// Whether it stands for standard input or output.
pub(crate) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Where results go.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    /// Standard output, a device, a pipe: what is written is there at once.
    Direct(File),
    /// A file beside `target`.
    Beside { file: NamedTempFile, target: PathBuf },
}

impl Output {
    /// Nothing changes at `path`, or at what it links to, before [`finish`](Self::finish); a dash is standard
    /// output.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let to = if is_dash(path) { to_stdout() } else { To::path(path) };
        let to = to.map_err(|error| Failure::file("write", path, error))?;
        Ok(Self { path: path.to_owned(), to })
    }

    /// The same, and a signal that ends this process takes what was written with it.
    pub(crate) fn open_until_signal(path: &Path) -> Result<Self, Failure> {
        if is_direct(path) {
            // There is nothing to remove, and opening a pipe may wait for its reader for ever: the thread below would wait
            // as long for the name, so the signals have to end this process without it.
            return Self::open(path);
        }
        let place = Arc::new(Mutex::new(None));
        // A signal that comes before the file is there waits until its name is known.
        let mut known = place.lock().unwrap_or_else(PoisonError::into_inner);
        remove_on_signal(Arc::clone(&place))?;
        let output = Self::open(path)?;
        if let To::Beside { file, .. } = &output.to {
            *known = Some(file.path().to_owned());
        }
        Ok(output)
    }

    /// Whether there is still somebody to write for: a reader that has seen enough and closed its end is no error.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let file: &mut dyn Write = match &mut self.to {
            To::Direct(file) => file,
            To::Beside { file, .. } => file,
        };
        match file.write_all(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::file("write", &self.path, error)),
        }
    }

    /// Puts what was written in its place.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let To::Beside { file, target } = self.to else { return Ok(()) };
        match file.persist(target) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::file("write", &self.path, error.error)),
        }
    }
}

/// Whether what is written to it is there at once.
fn is_direct(path: &Path) -> bool {
    is_dash(path) || std::fs::metadata(path).map_or(path.is_symlink(), |found| !found.is_file())
}

fn remove_on_signal(place: Arc<Mutex<Option<PathBuf>>>) -> Result<(), Failure> {
    let mut signals = interrupt::signals()?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            if let Some(path) = &*place.lock().unwrap_or_else(PoisonError::into_inner) {
                let _ = std::fs::remove_file(path);
            }
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// Makes a file with these bytes, or gives the one that is there these bytes.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut output = Output::open(path)?;
    output.write(bytes)?;
    output.finish()
}

fn to_stdout() -> io::Result<To> {
    use std::os::fd::AsFd;
    Ok(To::Direct(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
}

impl To {
    fn path(path: &Path) -> io::Result<Self> {
        match std::fs::metadata(path) {
            Ok(found) if found.is_file() => {
                // A user who may not write the file shall not replace it either.
                OpenOptions::new().write(true).open(path)?;
                Self::beside(path.canonicalize()?, Some(found.permissions()))
            }
            Ok(_) => Ok(Self::Direct(OpenOptions::new().write(true).open(path)?)),
            // A link to a file that is not there yet must stay a link.
            Err(_) if path.is_symlink() => Ok(Self::Direct(File::create(path)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::beside(path.to_owned(), None)
            }
            Err(error) => Err(error),
        }
    }

    fn beside(target: PathBuf, permissions: Option<Permissions>) -> io::Result<Self> {
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .permissions(Permissions::from_mode(NEW_FILE))
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        if let Some(permissions) = permissions {
            file.as_file().set_permissions(permissions)?;
        }
        Ok(Self::Beside { file, target })
    }
}
