//! Version 1, in memory that was supplied: a writer meets any header, and a reader any frames.

use crate::{Input, own_name, remove_at_exit};
use std::sync::Once;
use std::time::Duration;
use zerobuffer::memory::{HeapMemory, MemoryProvider, SharedMemoryView};
use zerobuffer::{BufferConfig, v1};

const PAYLOAD: usize = 512;
const SIZE: usize = 128 + 64 + PAYLOAD;

struct Memory {
    heap: HeapMemory,
    view: SharedMemoryView,
}

impl Memory {
    fn new() -> Self {
        let mut heap = HeapMemory::new();
        heap.allocate(SIZE).expect("memory");
        let view = heap.map(0, SIZE).expect("all of it");
        Self { heap, view }
    }

    fn write(&self, offset: usize, value: u64) {
        let offset = offset.min(SIZE - 8);
        // SAFETY: the bytes lie inside of the view; no other thread uses them.
        unsafe { self.view.as_ptr().add(offset).cast::<u64>().write_unaligned(value) };
    }
}

fn reader_in(memory: &Memory, name: &str) -> v1::Reader {
    let files = ["w", "r"].map(|which| format!("sem.sem-{which}-{name}"));
    // Once: a reader that closes removes them.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| remove_at_exit(&files));
    let config = v1::ReaderConfig::new(BufferConfig::new(64, PAYLOAD));
    // SAFETY: the memory is this buffer's alone; what the target writes to it stands for a broken peer.
    unsafe { v1::Reader::create_in(name, &memory.heap, config) }.expect("a reader starts")
}

/// The header as a reader makes it, then any words, then writes.
pub(crate) fn writer(bytes: &[u8]) {
    let (memory, name) = (Memory::new(), own_name("v1-writer"));
    let _reader = reader_in(&memory, &name);
    let mut input = Input(bytes);
    for _ in 0..input.byte() % 8 {
        let offset = usize::from(input.byte()) % (192 / 8) * 8;
        memory.write(offset, input.word());
    }
    // SAFETY: it is the reader's memory.
    let connected = unsafe { v1::Writer::connect_in(&name, &memory.heap, Duration::ZERO) };
    let Ok(mut writer) = connected else {
        return;
    };
    writer.set_write_timeout(Duration::ZERO);
    while !input.is_empty() {
        let (choice, place) = (input.byte(), usize::from(input.byte()));
        match choice % 5 {
            0 | 1 => drop(writer.write_frame(&vec![3; place * 2])),
            2 => drop(writer.set_metadata(&vec![4; place % 80])),
            3 => memory.write(place % (192 / 8) * 8, input.word()),
            // The reader releases everything.
            _ => {
                memory.write(0x28, PAYLOAD as u64);
                memory.write(0x38, u64::from(choice) * 2);
            }
        }
    }
}

/// Frames and words of any kind, and reads.
pub(crate) fn reader(bytes: &[u8]) {
    let (memory, name) = (Memory::new(), own_name("v1-reader"));
    let reader = reader_in(&memory, &name);
    memory.write(0x50, u64::from(std::process::id()));
    let mut input = Input(bytes);
    let mut held = Vec::new();
    let (mut position, mut sequence) = (0, 1);
    while !input.is_empty() {
        let (choice, place) = (input.byte(), usize::from(input.byte()));
        match choice % 6 {
            // A frame where it is expected, nearly or quite right.
            0 | 1 => {
                let len = place % 200;
                memory.write(192 + position, len as u64 + u64::from(choice >> 7) * 400);
                memory.write(192 + position + 8, sequence);
                position = (position + 16 + len) % PAYLOAD;
                memory.write(0x30, position as u64);
                memory.write(0x40, sequence);
                sequence += 1;
            }
            2 => memory.write(place % (192 / 8) * 8, input.word()),
            3 => memory.write(192 + place * 2, input.word()),
            4 => held.clear(),
            _ => {
                if let Ok(frame) = reader.read_frame(Duration::ZERO) {
                    std::hint::black_box(frame.data().iter().map(|b| u64::from(*b)).sum::<u64>());
                    held.extend((choice > 128).then(|| frame.into_owned()));
                }
                let _ = reader.metadata();
            }
        }
    }
}
