//! A server meets a client that writes any words into its control blocks, metadata and ring.

use crate::{Input, own_name, remove_at_exit};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use zerobuffer::{BufferConfig, Server};

pub(crate) fn run(bytes: &[u8]) {
    static SERVER: OnceLock<Mutex<(String, Server)>> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let name = own_name("server");
        let semaphores =
            ["request-ready", "response-ready", "response-consumed", "space-available"];
        let mut files: Vec<_> =
            semaphores.iter().map(|which| format!("sem.sem-{which}-{name}")).collect();
        files.push(format!("{name}_duplex"));
        remove_at_exit(&files);
        let server = Server::create(&name, BufferConfig::new(64, 1024)).expect("a server starts");
        Mutex::new((name, server))
    });
    let (name, server) = &mut *server.lock().unwrap_or_else(PoisonError::into_inner);
    let path = format!("/dev/shm/{name}_duplex");
    let Ok(segment) = File::options().read(true).write(true).open(path) else { return };
    let write = |offset: usize, value: u64| {
        segment.write_all_at(&value.to_le_bytes(), offset as u64).expect("it has the size");
    };
    // As an attached client, and a first frame that is good.
    write(0x48, 1);
    write(88 + 0x50, 1);
    let frame = |position: usize, len: u64, sequence: u64, phase: u64, shape: u64| {
        let words = [len, sequence, sequence << 8 | phase, shape];
        words.into_iter().enumerate().for_each(|(n, word)| write(4096 + position + 8 * n, word));
    };
    let mut input = Input(bytes);
    while !input.is_empty() {
        let (choice, place) = (input.byte(), usize::from(input.byte()));
        match choice % 5 {
            0 => {
                let shape = u64::from(input.byte() % 17) | u64::from(input.byte() % 160) << 32;
                let (len, sequence) = (u64::from(input.byte()), u64::from(input.byte() % 8));
                frame(place % 16 * 64, len, sequence, u64::from(choice >> 4) % 6, shape);
            }
            1 => write(place % (304 / 8) * 8, input.word()),
            2 => write(4096 + place % 128 * 8, input.word()),
            _ => {
                // Nothing waits long: a turn looks once or a few times.
                if let Ok(mut request) = server.receive(Duration::ZERO) {
                    request.data_mut().iter_mut().for_each(|byte| *byte = !*byte);
                    std::hint::black_box(request.metadata());
                    match choice % 3 {
                        0 => request.respond(),
                        1 => request.fail("no"),
                        _ => drop(request),
                    }
                }
            }
        }
    }
    // The client goes: a new segment.
    write(0x48, 0);
    write(88 + 0x50, 0);
    write(0x38, 1);
    for _ in 0..50 {
        let _ = server.receive(Duration::from_micros(200));
        let fresh = std::fs::read(format!("/dev/shm/{name}_duplex"));
        if fresh.is_ok_and(|bytes| bytes[0x38..0x40] == [0; 8]) {
            break;
        }
    }
}
