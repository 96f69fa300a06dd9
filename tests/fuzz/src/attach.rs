//! A client meets a segment of any bytes, and then a server that writes any words between its calls.

use crate::{Input, own_name, remove_at_exit};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::Duration;
use zerobuffer::{Client, ClientConfig};

const SIZE: usize = 4096 + 1024;

/// A segment whose byte 0 is locked, as if a server lived.
struct Impostor {
    name: String,
    segment: File,
}

impl Impostor {
    fn new() -> Self {
        let name = own_name("attach");
        let mut files = vec![format!("{name}_duplex")];
        for which in ["request-ready", "response-ready", "response-consumed", "space-available"] {
            let file = format!("sem.sem-{which}-{name}");
            std::fs::write(format!("/dev/shm/{file}"), [0; 32]).expect("/dev/shm");
            files.push(file);
        }
        let path = format!("/dev/shm/{}", files[0]);
        std::fs::write(&path, [0; SIZE]).expect("/dev/shm");
        remove_at_exit(&files);
        let segment = File::options().read(true).write(true).open(path).expect("just made");
        // SAFETY: an all-zero flock is valid, and the descriptor is open.
        let locked = unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = libc::F_WRLCK as libc::c_short;
            lock.l_len = 1;
            libc::fcntl(segment.as_raw_fd(), libc::F_OFD_SETLK, &lock)
        };
        assert_eq!(locked, 0);
        Self { name, segment }
    }

    /// A segment as a server makes it, or with as many other words as the input says.
    fn fill(&self, input: &mut Input<'_>) {
        let version = 88 | 2 << 32;
        let mut bytes = vec![0; SIZE];
        let mut put = |offset: usize, value: u64| {
            bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        };
        for block in [0, 88] {
            for (field, value) in [(0, version), (0x08, 64), (0x10, 64), (0x20, 1024), (0x28, 1024)]
            {
                put(block + field, value);
            }
        }
        put(0x50, 1);
        put(88 + 0x48, 1);
        for _ in 0..input.byte() % 8 {
            let offset = usize::from(input.byte()) % (304 / 8) * 8;
            put(offset, input.word());
        }
        self.segment.write_all_at(&bytes, 0).expect("it has the size");
    }

    fn write(&self, offset: usize, value: u64) {
        self.segment.write_all_at(&value.to_le_bytes(), offset as u64).expect("it has the size");
    }
}

pub(crate) fn run(bytes: &[u8]) {
    static IMPOSTOR: OnceLock<Impostor> = OnceLock::new();
    let impostor = IMPOSTOR.get_or_init(Impostor::new);
    let mut input = Input(bytes);
    impostor.fill(&mut input);
    let config = ClientConfig::new().send_timeout(Duration::ZERO).metadata(vec![1; 20]);
    let Ok(client) = Client::connect_with(&impostor.name, Duration::ZERO, config) else { return };
    let _ = client.server_metadata();
    let mut sent = 0;
    while !input.is_empty() {
        let choice = input.byte();
        let sequence = u64::from(input.byte()) % (sent + 2);
        match choice % 8 {
            0 | 1 => {
                if let Ok(sequence) = client.send_request(&vec![7; usize::from(input.byte())]) {
                    sent = sequence;
                }
            }
            2 => drop(client.receive_response_for(sequence, Duration::ZERO).map(|a| sum(a.data()))),
            3 => drop(client.receive_response(Duration::ZERO).map(|a| sum(a.data()))),
            4 => {
                client.cancel(sequence);
            }
            // The response to a request, as a server would give it, of any length and status.
            5 => {
                let slot = 4096 + usize::from(input.byte()) % 16 * 64;
                impostor.write(slot, u64::from(input.byte()));
                impostor.write(slot + 16, (sequence << 8) | (u64::from(choice >> 3) % 8));
            }
            6 => impostor.write(usize::from(input.byte()) % (304 / 8) * 8, input.word()),
            _ => impostor.write(4096 + usize::from(input.byte()) % 128 * 8, input.word()),
        }
    }
    client.in_flight();
}

fn sum(bytes: &[u8]) -> u64 {
    std::hint::black_box(bytes.iter().map(|byte| u64::from(*byte)).sum())
}
