//! Pages that are there from the start, small or huge.

use crate::harness::{LONG, Scene, scene};
use zerobuffer::{BufferConfig, Client, ClientConfig, Frame, Pages, Server, ServerConfig};

const PAYLOAD: usize = 8 << 20;
/// Of a frame that fills most of the ring.
const FRAME: usize = 6 << 20;

fn pair(t: &Scene, pages: Pages) -> (Server, Client) {
    let config = ServerConfig::new(BufferConfig::new(0, PAYLOAD)).pages(pages);
    let mut server = Server::create(t.name(), config).unwrap();
    server.start(|frame: &mut Frame<'_>| frame.data_mut()[0] += 1).unwrap();
    (server, t.client_with(ClientConfig::new().pages(pages)))
}

/// Page faults of this thread so far that needed no disk.
fn faults() -> i64 {
    // SAFETY: an all-zero rusage is a valid value of this plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place to write to.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) }, 0);
    usage.ru_minflt
}

/// Faults of the first request that fills its frame.
fn faults_of_the_first_frame(t: &Scene, pages: Pages) -> i64 {
    let (mut server, client) = pair(t, pages);
    let before = faults();
    let mut buffer = client.acquire_request_buffer(FRAME).unwrap();
    buffer.data_mut().fill(7);
    let sequence = buffer.commit().unwrap();
    let faults = faults() - before;
    let response = client.receive_response_for(sequence, LONG).unwrap();
    assert_eq!((response.data()[0], response.data()[FRAME - 1]), (8, 7));
    drop(response);
    drop(client);
    server.stop().unwrap();
    faults
}

#[test]
fn a_prefaulted_ring_is_filled_for_the_first_time_without_page_faults() {
    scene(|t| {
        let on_demand = faults_of_the_first_frame(t, Pages::OnDemand);
        let prefaulted = faults_of_the_first_frame(t, Pages::Prefaulted);
        let huge = faults_of_the_first_frame(t, Pages::Huge);
        // A page has 4 KiB, or more on other machines.
        assert!(on_demand >= 90, "{on_demand} faults for {FRAME} bytes");
        assert!(prefaulted < 16 && huge < 16, "{prefaulted} and {huge} faults");
    });
}

/// Bytes of this process's mappings of `file` that are in huge pages.
fn huge_bytes(file: &str) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut ours = false;
    let mut sum = 0;
    for line in maps.lines() {
        match line.split_once(':') {
            Some(("ShmemPmdMapped", size)) if ours => {
                let kib: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
                sum += kib << 10;
            }
            Some((first, _)) if first.contains('-') => ours = line.contains(file),
            _ => {}
        }
    }
    sum
}

#[test]
fn huge_pages_are_used_where_the_kernel_has_them() {
    scene(|t| {
        let (mut server, client) = pair(t, Pages::Huge);
        let huge = huge_bytes(t.name());
        client.send_request(&[1]).unwrap();
        assert_eq!(client.receive_response(LONG).unwrap().data(), [2]);
        drop(client);
        server.stop().unwrap();
        match huge {
            0 if !has_huge_pages() => println!("not run: this kernel gives no huge pages"),
            // Both mappings are in this process. The last megabytes may not fill a huge page, and what the
            // client collapses anew the server maps again when it touches it.
            _ => assert!(huge >= PAYLOAD as u64 - (2 << 20), "{huge} bytes"),
        }
    });
}

/// Linux 6.1 or later, built with huge pages.
fn has_huge_pages() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 1) && std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists()
}
