//! The three kinds of servers in this process.

use crate::args::ServeArgs;
use crate::commands::serving::{self, Editor, Kind};
use crate::failure::Failure;
use zerobuffer::{
    BufferConfig, ChannelName, DuplexChannelFactory, ErrorKind, Frame, Server, ServerConfig,
    Service, ServiceConfig, v1,
};

/// Permissions of what a channel's server makes, if nothing else is asked for: this user's own.
const PRIVATE: u32 = 0o600;

/// A server of any kind.
pub(super) enum Running {
    Service(Box<Service>),
    Channel(Box<Server>),
    TwoBuffers(String, Box<v1::DuplexServer>),
}

impl Running {
    pub(super) fn start(
        args: &ServeArgs,
        name: &ChannelName,
        editor: Editor,
    ) -> Result<Self, Failure> {
        match Kind::of(args) {
            Kind::Service => start_service(args, name, editor),
            Kind::Channel => start_channel(args, name, editor),
            Kind::TwoBuffers => start_two_buffers(args, name, editor),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        match self {
            Self::Service(service) => service.is_running(),
            Self::Channel(server) => server.is_running(),
            Self::TwoBuffers(_, server) => server.is_running(),
        }
    }

    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        match self {
            Self::Service(service) => service.stop()?,
            Self::Channel(server) => server.stop()?,
            Self::TwoBuffers(name, server) => {
                server.stop()?;
                serving::sweep(&format!("{name}_response"));
            }
        }
        Ok(())
    }
}

fn start_service(args: &ServeArgs, name: &ChannelName, editor: Editor) -> Result<Running, Failure> {
    let options = &args.service;
    let mut config = ServiceConfig::new()
        .ring(args.payload)
        .metadata_size(args.metadata)
        .workers(args.workers)
        .max_clients(options.max_clients)
        .max_ring(options.max_ring)
        .beside_channel(options.beside_channel);
    if let Some(bytes) = options.max_bytes {
        config = config.max_bytes(bytes as u64);
    }
    config = options.user.iter().fold(config, |config, uid| config.user(*uid));
    if let Some(gid) = options.group {
        config = config.group(gid);
    }
    if let Some(descriptor) = options.listener {
        config = config.listener(descriptor);
    }
    let mut service = Service::create(name.as_str(), config).map_err(create_failure)?;
    service.start(move |frame: &mut Frame<'_>| edit(&editor, frame))?;
    Ok(Running::Service(Box::new(service)))
}

/// What the library says, and which option helps.
fn create_failure(error: zerobuffer::Error) -> Failure {
    let is_beside_channel = error.kind() == ErrorKind::AlreadyRunning;
    let failure = Failure::from(error);
    match is_beside_channel {
        true => failure.hint("--beside-channel allows it, --channel serves a channel"),
        false => failure,
    }
}

fn start_channel(args: &ServeArgs, name: &ChannelName, editor: Editor) -> Result<Running, Failure> {
    let config = channel_config(args).workers(args.workers);
    let factory = DuplexChannelFactory::new();
    let mut server = factory.create_in_place_duplex_server(name.as_str(), config)?;
    server.start(move |frame: &mut Frame<'_>| edit(&editor, frame))?;
    Ok(Running::Channel(Box::new(server)))
}

fn start_two_buffers(
    args: &ServeArgs,
    name: &ChannelName,
    editor: Editor,
) -> Result<Running, Failure> {
    if args.workers > 1 {
        return Err(Failure::usage(
            "--two-buffers has one worker: its answers come in the order of the requests",
        ));
    }
    let mut config = channel_config(args);
    if let Some(uid) = args.owner {
        config = config.owner(uid);
    }
    let mut server = DuplexChannelFactory::new().create_mutable_server(name.as_str(), config)?;
    server.start_mutable(move |draft: &mut v1::Draft<'_>| {
        let (metadata, sequence) = (draft.metadata().to_vec(), draft.sequence());
        editor.edit(&metadata, sequence, draft.data_mut()).inspect_err(|reason| {
            // There is no other way to learn it: these channels do not carry reasons.
            tracing::warn!(sequence, reason, "frame refused, channel closed");
        })
    })?;
    Ok(Running::TwoBuffers(name.to_string(), Box::new(server)))
}

fn channel_config(args: &ServeArgs) -> ServerConfig {
    let buffer = BufferConfig::new(args.metadata, args.payload);
    ServerConfig::new(buffer).mode(args.mode.unwrap_or(PRIVATE))
}

fn edit(editor: &Editor, frame: &mut Frame<'_>) -> Result<(), String> {
    // The metadata is borrowed from the frame that is to be edited: a copy of its few bytes.
    let (metadata, sequence) = (frame.metadata().to_vec(), frame.sequence());
    editor.edit(&metadata, sequence, frame.data_mut())
}
