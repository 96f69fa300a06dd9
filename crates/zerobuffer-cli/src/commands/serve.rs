//! `zerobuffer serve`: a filter as a service or on a channel, until it is told to stop.

mod activation;
mod kinds;
mod processes;

use super::serving::{self, CHECK, Editor, Tally, farewell, greeting};
use crate::args::{Common, ServeArgs};
use crate::failure::{Exit, Failure};
use crate::filters::Chain;
use crate::interrupt;
use crate::report::Report;
use kinds::Running;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use zerobuffer::{ChannelName, Servers};

/// Serves until a signal, or the end of standard input if that was asked for.
pub(crate) fn run(mut args: ServeArgs, common: &Common, report: &Report) -> Result<Exit, Failure> {
    args.service.listener = activation::listener(&args)?;
    let args = &args;
    let name = ChannelName::new(&args.name)?;
    let chain =
        Chain::new(&args.filter, args.key.as_ref(), &args.image_options).map_err(Failure::usage)?;
    // Before anything exists, so that no signal can leave it behind.
    let reasons = reasons_to_stop(args.stop_on_eof)?;
    let tally = Arc::new(Tally::default());
    let about = |failure: Failure| failure.about(&args.name);
    let reason = if args.service.processes > 1 {
        processes::serve(args, common, report, &reasons, &tally).map_err(about)?
    } else {
        let editor = Editor { chain, tally: Arc::clone(&tally), spoil: args.spoil };
        let mut server = Running::start(args, &name, editor).map_err(about)?;
        report.result(&serving::event(args, &name, vec![std::process::id()]), || greeting(args))?;
        let reason = wait(&server, &reasons);
        server.stop().map_err(about)?;
        reason
    };
    if args.service.remove_directory {
        // It is not empty while another server listens.
        let _ = Servers::of(&args.name).and_then(|servers| servers.clean());
    }
    let event = tally.stopped(&args.name, reason);
    report.result(&event, || farewell(&event))?;
    Ok(Exit::Done)
}

/// Starts to listen for what can end the server. A reason is said in one word.
fn reasons_to_stop(stop_on_eof: bool) -> Result<Receiver<&'static str>, Failure> {
    let (tell, reasons) = channel();
    let mut signals = interrupt::signals()?;
    let tell_signal: Sender<&'static str> = tell.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let reason = match signal {
                SIGINT => "SIGINT",
                SIGTERM => "SIGTERM",
                _ => "SIGHUP",
            };
            let _ = tell_signal.send(reason);
        }
    });
    if stop_on_eof {
        std::thread::spawn(move || {
            let mut rest = [0; 256];
            while std::io::stdin().read(&mut rest).is_ok_and(|read| read > 0) {}
            let _ = tell.send("end_of_input");
        });
    }
    Ok(reasons)
}

fn wait(server: &Running, reasons: &Receiver<&'static str>) -> &'static str {
    loop {
        match reasons.recv_timeout(CHECK) {
            Ok(reason) => return reason,
            Err(RecvTimeoutError::Timeout) if server.is_running() => {}
            // `stop` says why.
            Err(_) => return "server_failed",
        }
    }
}
