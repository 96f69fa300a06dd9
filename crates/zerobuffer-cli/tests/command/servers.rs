//! `status` and `clean`.

use crate::support::{Name, Served, directory_of, kill, run, sockets, wait};

#[test]
fn a_status_shows_every_server_and_a_clean_removes_what_is_left() {
    let name = Name::new("status");
    run(&["status", &name]).failed(3, "no server has a socket");
    let mut killed = Served::start(&name, &["--filter", "echo"]);
    let server = Served::start(&name, &["--filter", "echo", "--max-clients", "7"]);
    let told = run(&["status", &name, "--json"]).json();
    let of_server = told["servers"].as_array().unwrap().iter();
    let pids: Vec<_> = of_server.map(|one| one["pid"].as_u64().unwrap()).collect();
    assert!(pids.len() == 2 && pids.contains(&server.child.id().into()), "{told}");
    assert_eq!((&told["ok"], &told["command"]), (&true.into(), &"status".into()));
    let text = run(&["status", &name]).ok();
    assert!(text.contains(&format!("process {}", server.child.id())), "{text}");
    assert!(text.contains("0 of 7 clients"), "{text}");

    kill(killed.child.id(), "KILL");
    wait(&mut killed.child);
    assert!(run(&["clean", &name]).ok().contains("a server listens there"));
    assert_eq!(sockets(&name).len(), 1);
    server.stop();
    assert_eq!(run(&["clean", &name, "--json"]).json()["removed"], true);
    assert!(!std::path::Path::new(&directory_of(&name)).exists());
}
