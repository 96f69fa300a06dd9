use super::{
    Error, ErrorKind, LostRequest, METADATA_OF_SERVICE, Medium, OTHER_OWNER, RequestState,
    UNEXPECTED_OWNER, shortened,
};

fn says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in: {text}"));
}

fn object() -> String {
    "/camera_duplex".to_owned()
}

#[test]
fn debug_is_the_kind_and_the_whole_message_in_one_line() {
    let error = Error::BadConfig { what: "workers", asked: 0, allowed: "1 to 1024" };
    assert_eq!(format!("{error:?}"), "BadConfig: workers is 0; allowed: 1 to 1024");
    let message = "first\nsecond".to_owned();
    let error = Error::HandlerFailed { sequence: 1, status: 1, message };
    assert!(!format!("{error:?}").contains('\n'), "{error:?}");
    assert!(error.to_string().contains("first\nsecond"));
    let error = Error::System { operation: "map", object: object(), errno: 12 };
    assert!(format!("{error:?}").contains("ulimit -v"), "{error:?}");
    let explained = Error::ClaimOpen.explained("because".to_owned());
    assert_eq!(format!("{explained:?}"), "ClaimOpen: because");
}

#[test]
fn a_refused_object_is_named_with_its_owner_its_mode_and_what_to_set() {
    let refused =
        |owner, mode| Error::PermissionDenied { object: object(), operation: "open", owner, mode };
    let words = ["open /camera_duplex", "owner: user 1000", "mode 0600", "`mode`", "0660"];
    says(&refused(Some(1000), Some(0o600)), &words);
    says(&refused(None, None), &["open /camera_duplex", "its owner", "`mode`"]);
    let foreign = |reason| Error::ForeignObject { object: object(), uid: 1000, reason };
    says(&foreign(UNEXPECTED_OWNER), &["owner: user 1000", "set `owner` to 1000"]);
    says(&foreign(OTHER_OWNER), &["have user 1000 remove it", "choose another name"]);
    says(&foreign("it is not a semaphore"), &["remove it if it is yours"]);
}

#[test]
fn what_is_too_large_says_what_to_do() {
    let large = |what| Error::TooLarge { what, asked: 100, max: 64 };
    says(&large("a request"), &["100 bytes", "at most 64", "larger payload size"]);
    says(&large("metadata"), &["larger metadata size"]);
    says(&large("a resized response"), &["response capacity"]);
    says(&large("a window into the view"), &["ask for less"]);
}

#[test]
fn the_end_of_a_peer_says_what_became_of_the_request() {
    let request = |state| Some(LostRequest { sequence: 7, state });
    let error = Error::PeerDied { request: request(RequestState::NotStarted) };
    says(&error, &["request 7 is not started", "safe to send again"]);
    let error = Error::PeerClosed { request: request(RequestState::InDoubt) };
    says(&error, &["request 7 is in doubt"]);
    says(&Error::PeerDied { request: None }, &["connect again"]);
    let error = Error::PeerDied { request: None }.never_sent();
    says(&error, &["the request was never sent", "safe to send again"]);
}

#[test]
fn a_service_s_client_is_told_to_ask_for_a_larger_ring() {
    let large = |what| Error::TooLarge { what, asked: 100, max: 64 };
    says(&large(METADATA_OF_SERVICE), &["a larger `metadata_size`"]);
    let full = Error::Full { medium: Medium::Service, needed: 8, free: 0, in_flight: 4, held: 0 };
    says(&full, &["make the ring larger (`ring` of the client's configuration)"]);
    let text = full.to_string();
    assert!(!text.contains("channel") && !text.contains("BufferConfig"), "{text}");
    let broken = Error::ProtocolViolation { field: "sequence", observed: 2, allowed: 1 };
    assert!(!broken.to_string().contains("channel"), "{broken}");
}

#[test]
fn a_full_ring_says_who_has_its_places() {
    let full =
        |medium, held| Error::Full { medium, needed: 8, free: 0, in_flight: 4, held }.to_string();
    let text = full(Medium::Channel, 0);
    let words = ["4 frames in flight", "receive their responses", "`send_timeout`", "`for_frames`"];
    words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in: {text}"));
    let text = full(Medium::Service, 3);
    let words = ["3 responses among them are held", "release them", "in their order"];
    words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in: {text}"));
    let text = full(Medium::Channel, 1);
    assert!(text.contains("1 response among them is held"), "{text}");
    let text = full(Medium::Buffer, 0);
    assert!(text.contains("the reader has to read and release them"), "{text}");
}

#[test]
fn what_a_stuck_server_holds_up_is_said() {
    let waited = std::time::Duration::from_secs(1);
    let response = Error::Timeout { waited, what: "waiting for a response" };
    says(&response, &["keeps its place until the server passes it"]);
    let full = Error::Full { medium: Medium::Channel, needed: 8, free: 0, in_flight: 4, held: 0 };
    says(&full, &["what was cancelled keeps its place until the peer passes it"]);
}

#[test]
fn numbers_are_the_ones_of_the_table() {
    assert_eq!(ErrorKind::BadName.code(), 1);
    assert_eq!(ErrorKind::SequenceUnknown.code(), 106);
    assert_eq!(Error::MetadataAlreadyWritten.kind().code(), 103);
}

#[test]
fn a_text_that_was_cut_has_a_mark() {
    assert_eq!(shortened("whole", 5), "whole");
    assert_eq!(shortened("too long", 6), "too…");
    assert_eq!(shortened("äöüä", 7), "äö…");
    assert_eq!(shortened("äöü", 2), "ä");
    assert_eq!(shortened("äöü", 1), "");
    assert_eq!(shortened("x", 0), "");
}
