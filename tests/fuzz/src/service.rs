//! Services: a server meets any hello, and a client any reply, segment and status; then both meet any words and bells.

use crate::packets::Packets;
use crate::{Input, own_name, remove_at_exit_all};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use zerobuffer::{Client, ClientConfig, Frame, Servers, Service, ServiceConfig};

/// Of a segment with a ring of 1024 bytes and two metadata blocks of 64: the page of the ring, and the doorbell's.
const DOORBELL: usize = 8192;
const SIZE: usize = DOORBELL + 4096;

/// A hello, or a reply, of this version.
fn message(code: u8, size: u64) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(b"ZBUFSVC\0");
    (bytes[8], bytes[12]) = (1, code);
    bytes[16..24].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// As many other words as the input says, a text of any bytes, and another length.
fn change(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..input.byte() % 4 {
        let at = usize::from(input.byte()) % 57;
        bytes[at..at + 8].copy_from_slice(&input.word().to_le_bytes());
    }
    let text = usize::from(input.byte());
    bytes.extend((0..text % 200).map(|_| input.byte()));
    if text > 240 {
        bytes.truncate(text - 220);
    }
}

/// The peer's writes into a segment, and its bells.
fn scribble(input: &mut Input<'_>, choice: u8, segment: &File, socket: &Packets) {
    let place = usize::from(input.byte());
    let write = |offset: usize, value: u64| {
        // It may be of another size, or sealed.
        let _ = segment.write_all_at(&value.to_le_bytes(), offset as u64);
    };
    match choice % 4 {
        0 => write(place % (304 / 8) * 8, input.word()),
        1 => write(4096 + place % 128 * 8, input.word()),
        2 => write(DOORBELL + place % 10 * 8, input.word()),
        _ => socket.send(&[1, 1][..place % 3], Some(segment), place >> 6),
    }
}

/// A service, its only socket, and no more: a client that writes anything.
pub(crate) fn hello(bytes: &[u8]) {
    static SERVICE: OnceLock<(Mutex<Service>, String)> = OnceLock::new();
    let (_service, path) = SERVICE.get_or_init(|| {
        let name = own_name("hello");
        let directory = format!("/tmp/{name}");
        remove_at_exit_all(&directory);
        let config = ServiceConfig::new().directory(&directory).ring(1024).metadata_size(64);
        let config = config.max_ring(1 << 20).max_clients(8);
        let mut service = Service::create(&name, config).expect("a service starts");
        let invert = |frame: &mut Frame<'_>| {
            std::hint::black_box(frame.metadata());
            frame.data_mut().iter_mut().for_each(|byte| *byte = !*byte);
        };
        service.start(invert).expect("its thread starts");
        let mut entries = std::fs::read_dir(format!("{directory}/{name}")).expect("its directory");
        let path = entries.next().expect("its socket").expect("readable").path();
        (Mutex::new(service), path.to_str().expect("UTF-8").to_owned())
    });
    let mut input = Input(bytes);
    let socket = Packets::connect(path);
    let mut hello = message(1 + input.byte() % 3, 0).to_vec();
    change(&mut hello, &mut input);
    socket.send(&hello, None, 0);
    if let (_, Some(segment)) = socket.receive() {
        while !input.is_empty() {
            let choice = input.byte();
            scribble(&mut input, choice, &segment, &socket);
        }
    }
    drop(socket);
    // Whatever that was, the next one is replied to.
    let next = Packets::connect(path);
    next.send(&message(3, 0), None, 0);
    let (reply, _) = next.receive();
    assert!(reply.len() >= 64 && reply[12] == 0, "the door does not reply any more: {reply:?}");
}

/// What an impostor of a server is to send to the next one that connects.
struct Order {
    reply: Vec<u8>,
    file: File,
    descriptors: usize,
}

/// A listening socket whose thread replies as it is told, and hands over the connection.
struct Impostor {
    name: String,
    directory: String,
    orders: Sender<Order>,
    connected: Receiver<Packets>,
}

impl Impostor {
    fn new(what: &str) -> Self {
        let name = own_name(what);
        let directory = format!("/tmp/{name}");
        let folder = format!("{directory}/{name}");
        std::fs::create_dir_all(&folder).expect("/tmp");
        remove_at_exit_all(&directory);
        let listener = Packets::listen(&format!("{folder}/0123456789abcdef.sock"));
        let (orders, ordered) = channel::<Order>();
        let (hand_over, connected) = channel();
        std::thread::spawn(move || {
            for order in ordered {
                let socket = listener.accept();
                socket.receive();
                socket.send(&order.reply, Some(&order.file), order.descriptors);
                let _ = hand_over.send(socket);
            }
        });
        Self { name, directory, orders, connected }
    }
}

/// A file as a server sends it, sealed or not.
fn memory(bytes: &[u8], seals: i32) -> File {
    // SAFETY: the name is a C string; what the call returns is this one's alone.
    let file = unsafe {
        let fd = libc::memfd_create(
            c"zerobuffer-fuzz".as_ptr(),
            libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC,
        );
        assert!(fd >= 0);
        File::from_raw_fd(fd)
    };
    file.write_all_at(bytes, 0).expect("memory");
    // SAFETY: the call takes integers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    file
}

const SIZE_SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// A segment as a server makes it, or with as many other words as the input says, or of another size.
fn segment(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    let mut put = |offset: usize, value: u64| {
        bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    };
    for block in [0, 88] {
        let fields = [(0, 88 | 2 << 32), (0x08, 64), (0x10, 64), (0x20, 1024), (0x28, 1024)];
        fields.into_iter().for_each(|(field, value)| put(block + field, value));
    }
    [0x50, 88 + 0x48, DOORBELL].into_iter().for_each(|offset| put(offset, 1));
    for _ in 0..input.byte() % 6 {
        let offset = usize::from(input.byte()) % (304 / 8) * 8;
        put(offset, input.word());
    }
    if input.byte() > 240 {
        bytes.truncate(usize::from(input.byte()) * 64);
    }
    bytes
}

fn impostor<'i>(
    cell: &'i OnceLock<Mutex<Impostor>>,
    what: &str,
) -> std::sync::MutexGuard<'i, Impostor> {
    cell.get_or_init(|| Mutex::new(Impostor::new(what)))
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// A client whose server sends anything, and writes anything afterwards.
pub(crate) fn reply(bytes: &[u8]) {
    static IMPOSTOR: OnceLock<Mutex<Impostor>> = OnceLock::new();
    let impostor = impostor(&IMPOSTOR, "reply");
    let mut input = Input(bytes);
    let shape = input.byte();
    let seals = if shape > 230 { i32::from(shape) & 0xf } else { SIZE_SEALS };
    let bytes = segment(&mut input);
    let file = memory(&bytes, seals);
    let mut reply =
        message(if shape % 16 == 1 { input.byte() % 8 } else { 0 }, bytes.len() as u64).to_vec();
    change(&mut reply, &mut input);
    let descriptors = if shape % 16 == 2 { usize::from(input.byte()) % 4 } else { 1 };
    let kept = file.try_clone().expect("a descriptor");
    impostor.orders.send(Order { reply, file, descriptors }).expect("it listens");
    let config = ClientConfig::new().directory(&impostor.directory).metadata(vec![1; 20]);
    let config = config.send_timeout(Duration::ZERO);
    let client = Client::connect_with(&impostor.name, Duration::ZERO, config);
    let socket = impostor.connected.recv().expect("it has replied");
    let Ok(client) = client else { return };
    std::hint::black_box(client.server_metadata());
    let mut sent = 0;
    while !input.is_empty() {
        let choice = input.byte();
        match choice % 8 {
            0 => {
                if let Ok(sequence) = client.send_request(&vec![7; usize::from(input.byte())]) {
                    sent = sequence;
                }
            }
            1 => drop(client.receive_response(Duration::ZERO).map(|response| sum(response.data()))),
            2 => {
                client.cancel(u64::from(input.byte()) % (sent + 2));
            }
            // The response to a request, as a server would give it, of any length and status.
            3 => {
                let slot = 4096 + u64::from(input.byte()) % 16 * 64;
                let sequence = u64::from(input.byte()) % (sent + 2);
                let state = (sequence << 8) | (u64::from(choice >> 3) % 8);
                let _ = kept.write_all_at(&u64::from(input.byte()).to_le_bytes(), slot);
                let _ = kept.write_all_at(&state.to_le_bytes(), slot + 16);
            }
            _ => scribble(&mut input, choice, &kept, &socket),
        }
    }
}

fn sum(bytes: &[u8]) -> u64 {
    std::hint::black_box(bytes.iter().map(|byte| u64::from(*byte)).sum())
}

/// A monitor whose server sends anything as its status.
pub(crate) fn status(bytes: &[u8]) {
    static IMPOSTOR: OnceLock<Mutex<Impostor>> = OnceLock::new();
    let impostor = impostor(&IMPOSTOR, "status");
    let mut input = Input(bytes);
    let shape = input.byte();
    let seals = if shape > 200 { i32::from(shape) & 0x1f } else { SIZE_SEALS | libc::F_SEAL_WRITE };
    let mut reply = message(if shape % 16 == 1 { input.byte() % 8 } else { 0 }, 0).to_vec();
    let (text, size) = {
        change(&mut reply, &mut input);
        let size = if shape % 16 == 3 { input.word() } else { input.0.len() as u64 };
        (input.0.to_vec(), size)
    };
    if reply.len() >= 24 {
        reply[16..24].copy_from_slice(&size.to_le_bytes());
    }
    let order =
        Order { reply, file: memory(&text, seals), descriptors: usize::from(shape % 16 != 2) };
    impostor.orders.send(order).expect("it listens");
    let servers = Servers::of(&impostor.name).expect("a name").directory(&impostor.directory);
    let told = servers.status(Duration::from_secs(5)).expect("one listens");
    drop(impostor.connected.recv().expect("it has replied"));
    for outcome in told {
        // What is handed out is what was sent, as it was.
        assert!(outcome.is_err() || outcome.is_ok_and(|told| told.as_bytes() == text));
    }
}
