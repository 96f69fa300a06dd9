//! Servers that come and go under load.

use crate::scene::{LONG, NAME, Scene, eventually};
use zerobuffer::Client;

#[test]
fn five_rolling_restarts_lose_no_request() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server workers=2");
    let mut clients: Vec<_> = (0..3).map(|_| scene.peer("role=client")).collect();
    for client in &mut clients {
        client.expect("under way");
    }
    for _ in 0..5 {
        let next = scene.peer("role=server workers=2");
        server.ask("stop", "stopped");
        server = next;
        eventually("all have come", || server.ask("clients", "clients") == "3");
    }
    for mut client in clients {
        let done = client.ask("stop", "done ");
        assert!(done.ends_with("in doubt 0"), "{done}");
    }
    server.ask("stop", "stopped");
}

#[test]
fn clients_survive_servers_that_are_killed_and_account_for_each_request() {
    let scene = Scene::new();
    let mut servers = [(); 2].map(|()| scene.peer("role=server"));
    let mut clients: Vec<_> = (0..3).map(|_| scene.peer("role=client")).collect();
    for client in &mut clients {
        client.expect("under way");
    }
    for round in 0..6 {
        let next = scene.peer("role=server");
        scene.kill(std::mem::replace(&mut servers[round % 2], next));
    }
    for mut client in clients {
        // Each response was compared with its request by the client itself.
        client.ask("stop", "done ");
    }
    for server in &mut servers {
        server.ask("stop", "stopped");
    }
}

#[test]
fn clients_spread_over_the_servers() {
    let scene = Scene::new();
    let mut servers = [(); 2].map(|()| scene.peer("role=server"));
    let clients: Vec<Client> = (0..10).map(|_| scene.client()).collect();
    for server in &mut servers {
        assert_eq!(server.ask("clients", "clients"), "5", "the less loaded one of two");
    }
    drop(clients);
    servers.iter_mut().for_each(|server| _ = server.ask("stop", "stopped"));
}

#[test]
fn a_client_that_waits_finds_the_first_server() {
    let scene = Scene::new();
    let config = scene.client_config();
    let waiting = std::thread::spawn(move || Client::connect_with(NAME, LONG, config).map(drop));
    std::thread::sleep(crate::raw::MOMENT);
    let mut server = scene.peer("role=server");
    waiting.join().unwrap().unwrap();
    server.ask("stop", "stopped");
}

#[test]
fn a_socket_whose_name_was_removed_gets_a_new_one() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    std::fs::remove_dir_all(&scene.directory).unwrap();
    // Found after the server's next look.
    let mut client = scene.client();
    assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    drop(client);
    server.ask("stop", "stopped");
}
