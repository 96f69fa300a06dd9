//! Full size, and the least of everything: small and crowded file systems, one CPU, many busy loops,
//! clocks, and a peer that is dead but not buried.
#![cfg(target_os = "linux")]

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::memory::{MemoryProvider, SharedMemory};
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, ErrorKind, Frame, Server, ServerConfig,
    WaitStrategy, v1,
};
use zerobuffer_test_support::{entry, names, not_run, unique, with_mount};

const LONG: Duration = Duration::from_secs(60);
/// The variable that makes this program a child of one of its tests: a role and a name.
const VARIABLE: &str = "ZEROBUFFER_TRUST_ROLE";

fn invert(frame: &mut Frame<'_>) {
    frame.data_mut().iter_mut().for_each(|byte| *byte = !*byte);
}

fn serve(name: &str, payload: usize) -> Server {
    let mut server = Server::create(name, BufferConfig::new(0, payload)).expect("a server starts");
    server.start(invert).expect("its thread starts");
    server
}

#[track_caller]
fn check_calls(client: &mut Client, count: usize) {
    for round in 0..count {
        let request = [round as u8; 100];
        let answer = client.call(&request, LONG).expect("answered");
        assert!(answer.data() == [!(round as u8); 100], "a wrong answer");
    }
}

entry!(VARIABLE, child_main);

/// What a child process of a test does.
fn child_main(description: &str) {
    let (role, name) = description.split_once(' ').expect("a role and a name");
    match role {
        "serve" => {
            let _server = serve(name, 1 << 16);
            println!("ready");
            std::thread::sleep(LONG * 10);
        }
        "talk" => talk(name),
        "one-cpu" => on_one_cpu(name),
        "one-cpu-later" => on_one_cpu_later(name),
        "file-size" => below_the_file_size_limit(name),
        "no-streams" => without_standard_streams(name),
        role => panic!("{role}"),
    }
}

fn child(program: &[&str], role: &str, name: &str) -> Command {
    let own = std::env::current_exe().expect("this program's file");
    let words = program.iter().map(|word| (*word).into()).chain([own.into_os_string()]);
    let words: Vec<std::ffi::OsString> = words.collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(VARIABLE, format!("{role} {name}"));
    command
}

/// Runs `body` on a thread with a /dev/shm of its own.
fn on_small_disk(what: &str, options: &'static str, body: impl FnOnce() + Send + 'static) {
    with_mount(what, "/dev/shm", options, body);
}

#[test]
fn one_mebibyte_of_shared_memory_is_enough_for_what_fits_and_an_error_for_what_does_not() {
    on_small_disk("a /dev/shm of 1 MiB", "size=1m", || {
        let name = unique("mib");
        for payload in [1 << 20, 64 << 20] {
            let config = || BufferConfig::new(0, payload);
            let error = Server::create(&name, config()).expect_err("too much");
            check_shortage(Err(error), "df /dev/shm");
            let error = v1::Reader::create(&name, config()).expect_err("too much");
            check_shortage(Err(error), "df /dev/shm");
            assert_eq!(names(&name), [""; 0]);
        }
        let mut server = Server::create(&name, BufferConfig::new(0, 512 << 10)).expect("fits");
        let client = Client::connect(&name, LONG).expect("attaches");
        let sent = client.send_request(&vec![1; 500 << 10]).expect("fits");
        server.receive(LONG).expect("received").respond();
        assert_eq!(client.receive_response_for(sent, LONG).expect("answered").data()[9], 1);
        drop((client, server));
        assert_eq!(names(&name), [""; 0]);
    });
}

/// The error of a shortage, with the advice that helps.
#[track_caller]
fn check_shortage(outcome: Result<(), Error>, advice: &str) {
    let Err(error) = outcome else { return };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    assert!(error.to_string().contains(advice), "{error}");
}

#[test]
fn too_few_inodes_are_an_error_that_says_so_and_nothing_is_left_behind() {
    // One for the folder itself; a channel needs five, a buffer three.
    for (options, channel, buffer) in [
        ("nr_inodes=2", false, false),
        ("nr_inodes=3", false, false),
        ("nr_inodes=4", false, true),
        ("nr_inodes=5", false, true),
        ("nr_inodes=6", true, true),
    ] {
        on_small_disk("a /dev/shm with few inodes", options, move || {
            let name = unique("inodes");
            let outcome = Server::create(&name, BufferConfig::new(0, 4096)).map(drop);
            assert_eq!(outcome.is_ok(), channel, "{options}: {outcome:?}");
            check_shortage(outcome, "df -i /dev/shm");
            assert_eq!(names(&name), [""; 0], "{options}");
            let outcome = v1::Reader::create(&name, BufferConfig::new(0, 4096)).map(drop);
            assert_eq!(outcome.is_ok(), buffer, "{options}: {outcome:?}");
            check_shortage(outcome, "df -i /dev/shm");
            assert_eq!(names(&name), [""; 0], "{options}");
        });
    }
}

#[test]
fn lock_files_for_which_there_is_no_room_are_an_error_that_says_so() {
    for (options, advice) in [("nr_inodes=1", "df -i"), ("nr_inodes=2", "df -i")] {
        with_mount("a small disk for lock files", "/tmp", options, move || {
            let name = unique("locks");
            let outcome = v1::Reader::create(&name, BufferConfig::new(0, 4096)).map(drop);
            assert!(outcome.is_err());
            check_shortage(outcome, advice);
            assert_eq!(names(&name), [""; 0], "{options}");
        });
    }
}

#[test]
fn one_gibibyte_goes_there_and_back_in_place() {
    const SIZE: usize = 1 << 30;
    let name = unique("gib");
    let mut server = match Server::create(&name, BufferConfig::new(0, SIZE + 64)) {
        Err(error) if error.kind() == ErrorKind::NoSpace => {
            return not_run("1 GiB of payload", &error.to_string());
        }
        server => server.expect("a server starts"),
    };
    let touch = |data: &mut [u8]| data.iter_mut().step_by(4096).for_each(|byte| *byte ^= 0x5a);
    server.start(move |frame: &mut Frame<'_>| touch(frame.data_mut())).expect("starts");
    let client = Client::connect(&name, LONG).expect("attaches");
    assert_eq!(client.max_request_size(), SIZE);
    for _ in 0..2 {
        let mut buffer = client.acquire_request_buffer(SIZE).expect("room");
        buffer.data_mut().iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let place = buffer.data_mut().as_ptr();
        let sent = buffer.commit().expect("sent");
        let answer = client.receive_response_for(sent, LONG).expect("answered");
        assert!(answer.data().as_ptr() == place && answer.data().len() == SIZE);
        assert!(answer.data().iter().step_by(4096).all(|byte| *byte == 1 ^ 0x5a));
    }
    drop(client);
    server.stop().expect("stops");
}

#[test]
fn ten_thousand_requests_are_in_flight_at_the_same_time() {
    const COUNT: u64 = 10_000;
    let name = unique("many");
    let config = BufferConfig::new(0, 64 * COUNT as usize);
    let mut server = Server::create(&name, config).expect("a server starts");
    let config = ClientConfig::new().max_in_flight(COUNT as usize);
    let client = Client::connect_with(&name, LONG, config).expect("attaches");
    (1..=COUNT).for_each(|n| assert_eq!(client.send_request(&n.to_le_bytes()).expect("room"), n));
    assert_eq!(client.in_flight(), COUNT as usize);
    let full = client.acquire_request_buffer(8).err().map(|error| error.kind());
    assert_eq!(full, Some(ErrorKind::Full));
    for _ in 0..COUNT {
        let mut request = server.receive(LONG).expect("received");
        request.data_mut().reverse();
        request.respond();
    }
    for n in 1..=COUNT {
        let answer = client.receive_response(LONG).expect("answered");
        assert_eq!((answer.sequence(), answer.data()), (n, &n.to_be_bytes()[..]));
    }
    assert_eq!(client.in_flight(), 0);
    drop(client);
    server.stop().expect("stops");
}

#[test]
fn one_thousand_channels_live_in_one_process() {
    const COUNT: usize = 1000;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit, to be written and to be read.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    if limit.rlim_max < 3 * COUNT as u64 {
        let max = limit.rlim_max;
        return not_run("1,000 channels in one process", &format!("{max} descriptors are allowed"));
    }
    let name = unique("thousand");
    let channel = |n: usize| format!("{name}-{n}z");
    let create = |n| Server::create(&channel(n), BufferConfig::new(0, 4096)).expect("starts");
    let mut servers: Vec<_> = (0..COUNT).map(create).collect();
    let connect = |n| Client::connect(&channel(n), LONG).expect("attaches");
    let clients: Vec<_> = (0..COUNT).map(connect).collect();
    for (n, client) in clients.iter().enumerate() {
        client.send_request(&n.to_le_bytes()).expect("sent");
    }
    for server in &mut servers {
        let mut request = server.receive(LONG).expect("received");
        request.data_mut().reverse();
        request.respond();
    }
    for (n, client) in clients.iter().enumerate() {
        let answer = client.receive_response(LONG).expect("answered");
        assert_eq!(answer.data(), n.to_be_bytes());
    }
    drop(clients);
    servers.iter_mut().for_each(|server| server.stop().expect("stops"));
    assert_eq!(names(&name), [""; 0]);
}

#[test]
fn eight_busy_loops_on_all_cpus_make_nothing_wrong() {
    let (name, done) = (unique("busy"), AtomicBool::new(false));
    let server = serve(&name, 1 << 16);
    std::thread::scope(|scope| {
        // Also when the test fails: the scope waits for its threads.
        let _end = EndAtDrop(&done);
        for _ in 0..8 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        for strategy in [WaitStrategy::Park, WaitStrategy::Spin, WaitStrategy::SpinThenPark] {
            let config = ClientConfig::new().wait(strategy);
            let mut client = Client::connect_with(&name, LONG, config).expect("attaches");
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(500) {
                check_calls(&mut client, 1);
            }
        }
    });
    drop(server);
}

struct EndAtDrop<'d>(&'d AtomicBool);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A channel with some traffic, and waits of every kind.
fn talk(name: &str) {
    let server = serve(name, 1 << 16);
    let config = ClientConfig::new().wait(WaitStrategy::Park).send_timeout(Duration::ZERO);
    let mut client = Client::connect_with(name, LONG, config).expect("attaches");
    check_calls(&mut client, 50);
    let timeout = client.receive_response(Duration::from_millis(30)).err();
    assert_eq!(timeout.map(|error| error.kind()), Some(ErrorKind::Timeout));
    drop((client, server));
    let reader = v1::Reader::create(name, BufferConfig::new(0, 4096)).expect("a reader starts");
    let mut writer = v1::Writer::connect(name, LONG).expect("attaches");
    writer.write_frame(b"frame").expect("written");
    drop(reader.read_frame(LONG).expect("read"));
    assert!(reader.read_frame(Duration::from_millis(30)).is_err());
}

#[test]
fn no_wait_looks_at_the_clock_that_can_be_set() {
    let name = unique("clock");
    let trace = std::env::temp_dir().join(format!("{name}.trace"));
    let path = trace.to_str().expect("a path in ASCII").to_owned();
    let calls = "trace=futex,clock_gettime,clock_nanosleep,nanosleep,timer_create,ppoll,poll";
    let output = child(&["strace", "-f", "-o", &path, "-e", calls], "talk", &name).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let _ = std::fs::remove_file(&trace);
            assert!(why.contains("ptrace"), "{why}");
            return not_run("CLOCK_REALTIME is not used", &format!("strace may not trace: {why}"));
        }
        Err(error) => {
            return not_run("CLOCK_REALTIME is not used", &format!("no strace: {error}"));
        }
    }
    let traced = std::fs::read_to_string(&trace).expect("strace has written it");
    let _ = std::fs::remove_file(&trace);
    assert!(traced.contains("FUTEX_WAIT_BITSET"), "nothing ever waited: {traced}");
    // The end of a thread is waited for by that clock, and without a time.
    let timed = |line: &&str| line.contains("tv_sec");
    for line in traced.lines().filter(timed) {
        assert!(!line.contains("CLOCK_REALTIME"), "{line}");
    }
    assert_eq!(names(&name), [""; 0]);
}

/// Seconds of CPU time that this process has used.
fn cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is valid, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time =
        |t: libc::timeval| Duration::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Leaves one CPU to all threads of this process.
fn narrow_to_one_cpu() {
    let threads = std::fs::read_dir("/proc/self/task").expect("the threads of this process");
    for thread in
        threads.filter_map(|thread| thread.expect("a thread").file_name().into_string().ok())
    {
        let thread = thread.parse().expect("its number");
        // SAFETY: an all-zero cpu_set_t is a valid, empty set; the calls get a valid pointer to one.
        unsafe {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            assert_eq!(libc::sched_getaffinity(thread, size_of_val(&all), &mut all), 0);
            let first = (0..1024).find(|cpu| libc::CPU_ISSET(*cpu, &all)).expect("a CPU");
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(first, &mut one);
            assert_eq!(libc::sched_setaffinity(thread, size_of_val(&one), &one), 0);
        }
    }
}

/// How often the threads of this process have gone to sleep by themselves.
fn sleeps() -> i64 {
    // SAFETY: an all-zero rusage is valid, and the call fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage.ru_nvcsw
    }
}

/// Both sides spin when their CPU is taken from them.
fn on_one_cpu_later(name: &str) {
    let config = ServerConfig::new(BufferConfig::new(0, 4096)).wait(WaitStrategy::Spin);
    calls_on_one_cpu(name, config, WaitStrategy::Spin, narrow_to_one_cpu);
}

/// Waits of half a second on both sides, on one CPU, where spinning would take it from the peer.
fn on_one_cpu(name: &str) {
    narrow_to_one_cpu();
    let config = ServerConfig::new(BufferConfig::new(0, 4096));
    calls_on_one_cpu(name, config.clone().wait(WaitStrategy::Spin), WaitStrategy::Spin, || ());
    let mut server = Server::create(name, config).expect("a server starts");
    server
        .start(|frame: &mut Frame<'_>| {
            if frame.data() == b"slow" {
                std::thread::sleep(Duration::from_millis(500));
            }
            invert(frame);
        })
        .expect("its thread starts");
    let mut client = Client::connect(name, LONG).expect("attaches");
    check_calls(&mut client, 300);
    let before = cpu_time();
    client.call(b"slow", LONG).expect("answered");
    std::thread::sleep(Duration::from_millis(500));
    let used = cpu_time() - before;
    println!("one CPU: {used:?} of CPU time in one second of waiting");
    assert!(used < Duration::from_millis(200), "it spins: {used:?} of one second");
}

/// Who spins on the only CPU keeps the peer from it for a whole slice of time, each time.
fn calls_on_one_cpu(name: &str, server: ServerConfig, client: WaitStrategy, then: fn()) {
    let mut server = Server::create(name, server).expect("a server starts");
    server.start(invert).expect("its thread starts");
    let config = ClientConfig::new().wait(client);
    let mut client = Client::connect_with(name, LONG, config).expect("attaches");
    check_calls(&mut client, 3);
    then();
    let before = sleeps();
    check_calls(&mut client, 300);
    let slept = sleeps() - before;
    println!("one CPU: {slept} times asleep in 300 calls");
    // Who spins is put aside, and never sleeps.
    assert!(slept >= 300, "it spins: {slept} times asleep in 300 calls");
}

#[test]
fn nobody_spins_where_there_is_one_cpu() {
    for role in ["one-cpu", "one-cpu-later"] {
        let name = unique("cpu");
        let status = child(&["env"], role, &name).status().expect("a child");
        assert!(status.success(), "{role}: {status}");
        assert_eq!(names(&name), [""; 0]);
    }
}

#[test]
fn a_server_that_is_dead_but_not_buried_is_dead() {
    let name = unique("zombie");
    let mut process: Child =
        child(&["env"], "serve", &name).stdout(Stdio::null()).spawn().expect("a child");
    let mut client = Client::connect(&name, LONG).expect("attaches");
    check_calls(&mut client, 3);
    process.kill().expect("a child");
    let start = Instant::now();
    let error = client.receive_response(LONG).expect_err("nothing was sent");
    assert_eq!(error.kind(), ErrorKind::PeerDied, "{error:?}");
    // Hours before anybody waits for it.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let server = serve(&name, 1 << 16);
    client.reconnect(LONG).expect("the successor is there");
    check_calls(&mut client, 3);
    drop((client, server));
    process.wait().expect("a child");
    assert_eq!(names(&name), [""; 0]);
}

/// Whether a descriptor of this number is open.
fn is_open(descriptor: i32) -> bool {
    // SAFETY: the call touches no memory.
    unsafe { libc::fcntl(descriptor, libc::F_GETFD) != -1 }
}

/// Everything that keeps a descriptor, in a process that has none for its standard streams. What fails shows
/// in the exit status alone.
fn without_standard_streams(name: &str) {
    for stream in 0..3 {
        // SAFETY: nothing here writes to a standard stream from now on.
        unsafe { libc::close(stream) };
    }
    // Its server lives in another process: waiting for it takes descriptors as well.
    let client = Client::connect(name, LONG).expect("attaches");
    let timeout = client.receive_response(Duration::from_millis(50)).err();
    assert_eq!(timeout.map(|error| error.kind()), Some(ErrorKind::Timeout));
    let own = format!("{name}-own");
    let server = serve(&own, 1 << 16);
    check_calls(&mut Client::connect(&own, LONG).expect("attaches"), 3);
    let reader = v1::Reader::create(&own, BufferConfig::new(0, 4096)).expect("a reader starts");
    let mut writer = v1::Writer::connect(&own, LONG).expect("attaches");
    writer.write_frame(b"frame").expect("written");
    drop(reader.read_frame(LONG).expect("read"));
    let taken = (0..3).filter(|stream| is_open(*stream)).count();
    drop((client, server, writer, reader));
    std::process::exit(taken as i32);
}

#[test]
fn no_descriptor_of_a_channel_takes_the_place_of_a_standard_stream() {
    let name = unique("streams");
    let mut server =
        child(&["env"], "serve", &name).stdout(Stdio::null()).spawn().expect("a child");
    let status = child(&["env"], "no-streams", &name).status().expect("a child");
    let _ = server.kill();
    server.wait().expect("a child");
    serve(&name, 4096).stop().expect("removes what is left");
    assert_eq!(status.code(), Some(0), "so many of the three are taken");
    assert_eq!(names(&name), [""; 0]);
}

#[test]
fn channels_of_both_kinds_are_made_where_there_is_no_proc() {
    with_mount("no /proc", "/proc", "size=4k", || {
        assert!(!std::fs::exists("/proc/self").expect("/proc can be read"));
        let name = unique("proc");
        let server = serve(&name, 1 << 16);
        check_calls(&mut Client::connect(&name, LONG).expect("attaches"), 3);
        let reader = v1::Reader::create(&name, BufferConfig::new(0, 4096)).expect("starts");
        let mut writer = v1::Writer::connect(&name, LONG).expect("attaches");
        writer.write_frame(b"frame").expect("written");
        assert_eq!(reader.read_frame(LONG).expect("read").data(), b"frame");
        drop((server, writer, reader));
        assert_eq!(names(&name), [""; 0]);
    });
}

/// Files of at most so many bytes from now on; longer ones are a signal, which ends the process.
fn limit_file_size(bytes: u64) {
    // SAFETY: `limit` is a valid rlimit, to be written and to be read.
    unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit), 0);
        limit.rlim_cur = bytes.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

/// Everything that makes files, where they must be shorter.
fn below_the_file_size_limit(name: &str) {
    let config = || BufferConfig::new(64, 1 << 16);
    let refused = |error: Error| {
        check_shortage(Err(error), "ulimit -f");
        assert_eq!(names(name), [""; 0]);
    };
    for action in [libc::SIG_DFL, libc::SIG_IGN] {
        // SAFETY: neither action runs code of this program.
        unsafe { libc::signal(libc::SIGXFSZ, action) };
        for limit in [0, 16, 4096, 1 << 16] {
            limit_file_size(limit);
            refused(Server::create(name, config()).expect_err("too long"));
            refused(v1::Reader::create(name, config()).expect_err("too long"));
            refused(v1::DuplexServer::create(name, config()).expect_err("too long"));
            let mut memory = SharedMemory::create(name, 0o600).expect("empty");
            let error = memory.allocate(1 << 17).expect_err("too long");
            check_shortage(Err(error), "ulimit -f");
            memory.unlink().expect("unlinks");
        }
        limit_file_size(u64::MAX);
        // A client creates nothing, and a server that must create its segment again keeps trying.
        let mut server = Server::create(name, config()).expect("a server starts");
        limit_file_size(4096);
        let client = Client::connect(name, LONG).expect("attaches");
        client.send_request(b"one").expect("sent");
        server.receive(LONG).expect("received").respond();
        drop(client);
        let error = server.receive(LONG).expect_err("no segment for the next one");
        check_shortage(Err(error), "ulimit -f");
        limit_file_size(u64::MAX);
        drop(server);
        serve(name, 4096).stop().expect("removes what is left");
    }
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_not_the_end_of_the_process() {
    let name = unique("fsize");
    let output = child(&["env"], "file-size", &name).output().expect("a child");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    assert_eq!(names(&name), [""; 0]);
}
