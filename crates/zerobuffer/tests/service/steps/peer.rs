//! Child processes that can be armed, and that count what they have at their end.

use crate::scene::{LONG, NAME};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use zerobuffer::{
    Client, ClientConfig, Error, Frame, RequestLayout, Service, ServiceConfig, WaitStrategy,
};
use zerobuffer_test_support::{Census, commands, say};

/// The handler of a request with this number waits for the command `open`.
pub(super) const GATE: u64 = u64::MAX - 1;

/// The value of `name=value` among the words of a line.
fn find<'w>(line: &'w str, name: &str) -> Option<&'w str> {
    let mut words = line.split(' ').filter_map(|word| word.split_once('='));
    words.find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn number(line: &str, name: &str) -> Option<u64> {
    find(line, name).map(|value| value.parse().expect("a number"))
}

/// Arms a step, if the line has a `point`.
fn arm(line: &str) {
    if let Some(point) = find(line, "point") {
        let signal = number(line, "signal").map_or(libc::SIGKILL, |signal| signal as i32);
        let skip = number(line, "skip").unwrap_or(0);
        zerobuffer::failpoints::arm(point, signal, skip as u32);
    }
}

fn compare(before: &Census) {
    match before.changes(|| Census::of_process("zerobuffer-")) {
        None => say("unchanged"),
        Some(changes) => say(&format!("left behind: {changes}")),
    }
}

/// Serves: each request begins with a number, which the handler increases; one of `u64::MAX` takes some time.
/// Commands: arm, is armed, open, clients, calls, stop.
pub(crate) fn serve(description: &str) {
    let before = Census::at_start("zerobuffer-");
    arm(description);
    let config = ServiceConfig::new()
        .directory(find(description, "directory").expect("a directory"))
        .ring(number(description, "ring").unwrap_or(1 << 16) as usize)
        .workers(number(description, "workers").unwrap_or(1) as usize)
        .wait(WaitStrategy::Park)
        .metadata("worker")
        .stop_timeout(Duration::from_millis(500));
    let mut service = Service::create(NAME, config).expect("a service starts");
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let handler = move |frame: &mut Frame<'_>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let Some(number) = frame.data_mut().first_chunk_mut() else { return };
        let value = u64::from_le_bytes(*number);
        while value == GATE && !opened.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if value == u64::MAX {
            std::thread::sleep(Duration::from_millis(60));
        }
        *number = value.wrapping_add(1).to_le_bytes();
    };
    service.start(handler).expect("threads");
    say("ready");
    for command in commands() {
        match command.split(' ').next().expect("a word") {
            "arm" => {
                arm(&command);
                say("armed");
            }
            "is" => say(&zerobuffer::failpoints::is_armed().to_string()),
            "open" => gate.store(true, Ordering::SeqCst),
            "clients" => say(&format!("clients {}", service.clients())),
            "calls" => say(&format!("calls {}", calls.load(Ordering::SeqCst))),
            "stop" => {
                service.stop().expect("stops");
                drop(service);
                return compare(&before);
            }
            command => panic!("no command {command}"),
        }
    }
}

/// One client: connect, claim, send, call, close, arm, stop.
pub(crate) fn call(description: &str) {
    let before = Census::at_start("zerobuffer-");
    let directory = find(description, "directory").expect("a directory");
    let config = ClientConfig::new()
        .directory(directory)
        .ring(4096)
        .wait(WaitStrategy::Park)
        .metadata("caller");
    let mut client: Option<Client> = None;
    say("ready");
    for command in commands() {
        if command == "stop" {
            drop(client);
            return compare(&before);
        }
        match obey(&command, &config, &mut client) {
            Ok(()) => say("ok"),
            Err(error) => say(&format!("err {:?} {error}", error.kind())),
        }
    }
}

fn obey(command: &str, config: &ClientConfig, client: &mut Option<Client>) -> Result<(), Error> {
    let timeout = number(command, "ms").map_or(LONG, Duration::from_millis);
    let mut request = vec![7_u8; number(command, "len").unwrap_or(8) as usize];
    let value = number(command, "value").unwrap_or(1);
    if let Some(first) = request.first_chunk_mut() {
        *first = value.to_le_bytes();
    }
    let attached = || client.as_ref().expect("attached");
    match command.split(' ').next().expect("a word") {
        "arm" => arm(command),
        "connect" => *client = Some(Client::connect_with(NAME, LONG, config.clone())?),
        "claim" => {
            let buffer = attached().acquire_request_buffer_with(1000, RequestLayout::new())?;
            // For ever: this process is about to be killed, or goes on and drops its connection.
            std::mem::forget(buffer);
        }
        "send" => drop(attached().send_request(&request)?),
        "call" => {
            let response = client.as_mut().expect("attached").call(&request, timeout)?;
            assert_eq!(response.data()[..8], value.wrapping_add(1).to_le_bytes());
        }
        "close" => *client = None,
        command => panic!("no command {command}"),
    }
    Ok(())
}
