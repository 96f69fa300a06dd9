//! The command line: what can be asked, and its help.

mod parse;
pub(crate) mod stream;

use crate::filters::{Filter, ImageOptions, Key};
use crate::picture::Shape;
use clap::{ArgGroup, Args, Parser, Subcommand};
use parse::{parse_bytes, parse_mode, parse_seconds, parse_shape, parse_size, parse_workers};
use std::path::PathBuf;
use std::time::Duration;
use stream::{ReaderArgs, RelayArgs, WriterArgs};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and every answer and frame was right
  1  an answer or a frame was wrong
  2  wrong use: an option, a value, a name
  3  nobody on the other side: no server, no reader, no writer
  4  the other side died or closed
  5  the service is full, or somebody has that role on the channel or buffer already
  6  no answer, no frame or no room in time
  7  the server's filter refused the frame
  8  a file cannot be read or written
  9  the system or the channel's size does not allow it
  128 + n  ended by signal n

The reference is docs/command.md.";

/// Services and channels over shared memory: another process edits your data where it lies.
#[derive(Debug, Parser)]
#[command(name = "zerobuffer", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print JSON for programs instead of text for people
    #[arg(long, visible_alias = "json-output", global = true, display_order = 100)]
    pub(crate) json: bool,
    /// Say on standard error what happens to the channel (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 101)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Blur and redact a picture in a second process, in place and over two buffers, and check it
    Demo(DemoArgs),
    /// Serve a filter to any number of clients until Ctrl-C or SIGTERM
    Serve(ServeArgs),
    /// Send a picture or raw bytes to a server, and write the response
    Call(CallArgs),
    /// Show what a service's servers and their clients do
    Status(StatusArgs),
    /// Remove what killed servers of a service have left, and its empty directory
    Clean(CleanArgs),
    /// Write frames with a known pattern into a version 1 buffer
    Writer(WriterArgs),
    /// Make a version 1 buffer, read its frames and check them
    Reader(ReaderArgs),
    /// Move the frames of one version 1 buffer into another one
    Relay(RelayArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zerobuffer demo
  zerobuffer demo --image holiday.jpg --frames 500 --out holiday-demo
  zerobuffer demo --size 3840x2160 --json

In place the channel copies nothing: the client writes each frame where the server will edit it, and
reads the answer there. The same frames go through a channel over two buffers, which copies, frame by
frame in turn; first blurred and redacted, where the work takes longer than the copies, and then only
redacted, where the copies are most of it. Frame n is the picture moved down by n steps, so that no
answer can pass for another one.")]
pub(crate) struct DemoArgs {
    /// A PNG or JPEG file to send [default: a picture that the program draws]
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// How many frames to send, blurred and then only redacted
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) frames: u64,
    /// Size of the frames; a given picture is scaled to it [default: 1280x720, or the picture's]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub(crate) size: Option<(u32, u32)>,
    /// Folder for before.png and after.png, made if it is not there
    #[arg(long, value_name = "DIR", default_value = "zerobuffer-demo")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) image_options: ImageOptions,
    /// Spoil every N-th answer: shows that the check finds it
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) spoil: Option<u64>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("one_client").args(["channel", "two_buffers"]), after_help = "\
Examples:
  zerobuffer serve thumbs --filter grayscale
  zerobuffer serve cameras --filter blur,redact --box 100,80,320,200 --payload 64MiB --workers 2
  zerobuffer serve images --filter blur --processes 2
  zerobuffer serve secret --filter xor --key 5a1f --channel
  zerobuffer serve legacy --filter invert --two-buffers

echo, invert and xor work on bytes of any length. blur, grayscale and redact need the picture's
size in the client's metadata, which `zerobuffer call --image` sends.
A service serves any number of clients at once. A channel (--channel, --two-buffers) serves one
client after the other. --two-buffers is protocol version 1, for clients that know nothing else:
the response is a copy of the request in another buffer.")]
pub(crate) struct ServeArgs {
    /// The service's or channel's name: 1 to 200 of A-Z a-z 0-9 . _ - and no leading dot
    pub(crate) name: String,
    /// What to do with each frame, in place; several apply in their order
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    pub(crate) filter: Vec<Filter>,
    /// Serve a channel in /dev/shm, in place, for one client at a time
    #[arg(long)]
    pub(crate) channel: bool,
    /// Serve over two buffers, protocol version 1: edit a copy of each frame
    #[arg(long)]
    pub(crate) two_buffers: bool,
    /// Size of the ring that all frames in flight of one client share; with --two-buffers of that for requests
    #[arg(long, visible_alias = "ring", value_name = "BYTES", default_value = "32MiB", value_parser = parse_bytes)]
    pub(crate) payload: usize,
    /// Size of the metadata block of each direction that the server makes
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = parse_bytes)]
    pub(crate) metadata: usize,
    /// Threads that run the filter on different frames at the same time, in each process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_workers)]
    pub(crate) workers: usize,
    #[command(flatten)]
    pub(crate) service: ServiceOptions,
    /// Key of xor, in hexadecimal; it repeats over the frame
    #[arg(long, value_name = "HEX")]
    pub(crate) key: Option<Key>,
    #[command(flatten)]
    pub(crate) image_options: ImageOptions,
    /// Permissions of the channel's objects, in octal: 660 for the group, 666 for every user [default: 600]
    #[arg(long, value_name = "OCTAL", value_parser = parse_mode, requires = "one_client")]
    pub(crate) mode: Option<u32>,
    /// With --two-buffers: the user that the clients run as, who own the buffers for responses [default: this user]
    #[arg(long, value_name = "UID", requires = "two_buffers")]
    pub(crate) owner: Option<u32>,
    /// Stop as well when standard input ends: for a program that starts this one through a pipe
    #[arg(long)]
    pub(crate) stop_on_eof: bool,
    /// Flip a bit in every N-th answer, for tests of those who check answers
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) spoil: Option<u64>,
}

/// What only a service has.
#[derive(Debug, Args)]
pub(crate) struct ServiceOptions {
    /// Server processes that share the service's clients; one that dies is replaced
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), conflicts_with = "one_client")]
    pub(crate) processes: u16,
    /// The most clients at the same time, for each process
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "one_client")]
    pub(crate) max_clients: usize,
    /// The largest ring that a client can ask for
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = parse_bytes, conflicts_with = "one_client")]
    pub(crate) max_ring: usize,
    /// The most memory of all clients together, for each process [default: half of what is free]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "one_client")]
    pub(crate) max_bytes: Option<usize>,
    /// A user whose programs may attach, besides this one and root; can be repeated
    #[arg(long, value_name = "UID", conflicts_with = "one_client")]
    pub(crate) user: Vec<u32>,
    /// A group whose members may attach, and reach the socket
    #[arg(long, value_name = "GID", conflicts_with = "one_client")]
    pub(crate) group: Option<u32>,
    /// Serve although a channel in place of that name has a server, whose clients then come here
    #[arg(long, conflicts_with = "one_client")]
    pub(crate) beside_channel: bool,
    /// Serve this listening socket, a descriptor that was inherited [default: systemd's, if it hands one over]
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(0..), conflicts_with = "one_client")]
    pub(crate) listener: Option<i32>,
    /// Remove the service's directory at the end, unless another server has a socket in it
    #[arg(long, conflicts_with = "one_client")]
    pub(crate) remove_directory: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true).args(["image", "raw"]), after_help = "\
Examples:
  zerobuffer call thumbs --image holiday.jpg --out gray.png
  zerobuffer call secret --raw letter.txt --out letter.bin --wait 10
  head -c 1000000 /dev/urandom | zerobuffer call echo --raw - --out - | sha256sum
  zerobuffer call echo --raw frame.bin --out /dev/null --repeat 10000 --json
  zerobuffer call echo --raw frame.bin --out /dev/null --repeat 1000 --connections 4
  ffmpeg -i in.mp4 -f rawvideo -pix_fmt rgb24 - |
    zerobuffer call cameras --raw - --size 1920x1080x3 --out - |
    ffmpeg -f rawvideo -pix_fmt rgb24 -s 1920x1080 -i - out.mp4

With --size, --raw is one frame or many, and each is a request. Nothing is read before it is known
that it fits the ring. The name may be that of a service or of a channel; service:NAME and channel:NAME
look for one of them only.")]
pub(crate) struct CallArgs {
    /// The service's or channel's name
    pub(crate) name: String,
    /// A PNG or JPEG file: its pixels are the request, its size goes into the metadata
    #[arg(long, value_name = "IN")]
    pub(crate) image: Option<PathBuf>,
    /// A file whose bytes are the request; - is standard input
    #[arg(long, value_name = "IN")]
    pub(crate) raw: Option<PathBuf>,
    /// Size of each frame of --raw, in pixels and channels: 1 gray, 3 RGB, 4 RGBA; frames follow each other to the end
    #[arg(long, value_name = "WxHxC", value_parser = parse_shape, conflicts_with = "image")]
    pub(crate) size: Option<Shape>,
    /// Where the response goes: .png or .jpg for --image; - is standard output for --raw
    #[arg(long, value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Send the request so many times; all responses must be equal
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeat: u64,
    /// Attach so many times at once, and send from all of them at the same time; needs a service
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) connections: u16,
    /// Size of the ring to ask a service for [default: what the service gives]
    #[arg(long, value_name = "BYTES", default_value = "0", hide_default_value = true, value_parser = parse_bytes)]
    pub(crate) ring: usize,
    /// How long to wait for a server that is not there yet, or serves as many clients as it can
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    pub(crate) wait: Duration,
    /// How long to wait for room and for the response, each time
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub(crate) timeout: Duration,
    /// The user that the server runs as [default: this user; of a service root as well]
    #[arg(long, value_name = "UID")]
    pub(crate) owner: Option<u32>,
    /// Over two buffers: permissions of the buffer for responses, in octal, for a server of another user [default: 600]
    #[arg(long, value_name = "OCTAL", value_parser = parse_mode)]
    pub(crate) mode: Option<u32>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zerobuffer status images
  zerobuffer status images --json

One table for each server. With --json: what each server says, as docs/protocol-service.md lists it.")]
pub(crate) struct StatusArgs {
    /// The service's name
    pub(crate) name: String,
    /// How long to wait for servers that do not reply
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    pub(crate) timeout: Duration,
    /// The user that the servers run as, if it is neither this one nor root
    #[arg(long, value_name = "UID")]
    pub(crate) owner: Option<u32>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zerobuffer clean images

What listens stays, and so does what no server has made. A container that has the directory mounted does not
find a service whose directory is removed and made again.")]
pub(crate) struct CleanArgs {
    /// The service's name
    pub(crate) name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zerobuffer completions bash > ~/.local/share/bash-completion/completions/zerobuffer
  zerobuffer completions fish > ~/.config/fish/completions/zerobuffer.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
